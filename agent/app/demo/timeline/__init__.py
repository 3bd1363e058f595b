"""The demo's picture: what the carrier saw of a call, as lanes on one time axis."""
