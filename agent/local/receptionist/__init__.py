"""The embedded model's mind: a receptionist by rules."""
