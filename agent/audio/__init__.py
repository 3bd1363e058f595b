"""Frames, generations and the 20 ms beat."""
