"""One call: its conversation, its parts and its ending. ``agent/nursery_call.py`` runs them."""
