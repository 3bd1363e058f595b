"""HTTP/1.1 on h11 and Trio: strict heads, bounded connections, an ASGI application. It knows of no call."""
