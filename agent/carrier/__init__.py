"""The carrier's side: the one port, Twilio's webhooks, media streams and REST API."""
