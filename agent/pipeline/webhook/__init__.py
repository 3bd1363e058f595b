"""``call.completed``: its body, its signature, its delivery."""
