"""A call's recording: found, downloaded once, checked."""
