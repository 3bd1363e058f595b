"""The browser as a phone, simulated: the same protocol as the page speaks, over any socket."""
