"""The simulated model: a scripted Realtime server and OpenAI's REST API."""
