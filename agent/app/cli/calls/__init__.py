"""``call-agent calls``: calls for people to read, and for scripts."""
