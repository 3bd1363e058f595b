"""The model's side of a call: its session, its events, its errors."""
