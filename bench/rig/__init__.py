"""What a run is made of: processes on cores of their own, and who plays in it."""
