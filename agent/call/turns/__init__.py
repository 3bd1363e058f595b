"""Whose turn it is: what the caller does, and what it means. Pure."""
