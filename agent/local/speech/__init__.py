"""The embedded model's ear and voice."""
