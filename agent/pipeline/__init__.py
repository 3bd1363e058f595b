"""What is done after a call: the steps, the workers that do them, and what they need."""
