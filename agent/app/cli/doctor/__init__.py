"""``call-agent doctor``: what a working phone agent needs, and what to do about what is missing."""
