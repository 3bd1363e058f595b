"""What was said: the transcript, and what tells it to a new session. Pure."""
