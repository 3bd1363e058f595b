"""Tools the model may call: how they are declared, the built-in ones, and those of users."""
