"""One server of several processes: a parent without calls, and children that share a port (docs/deploying.md)."""
