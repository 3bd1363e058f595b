"""The simulated carrier's REST API and its recordings."""
