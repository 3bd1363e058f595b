"""The one port: HTTP for the carrier's webhooks, WebSockets for its streams."""
