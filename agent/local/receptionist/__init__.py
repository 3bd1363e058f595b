"""The embedded model's dialogue: a receptionist by rules."""
