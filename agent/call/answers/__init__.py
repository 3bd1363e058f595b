"""The model's answers: asked for, generated, heard. Pure."""
