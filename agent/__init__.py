"""A phone agent developers can reason about: Twilio Media Streams, OpenAI Realtime, Trio."""
