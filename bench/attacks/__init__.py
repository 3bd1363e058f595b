"""Strangers at the door of a real server, beside a live call."""
