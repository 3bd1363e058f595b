"""One WebSocket behind a seam, and the engine behind it."""
