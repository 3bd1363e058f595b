"""The simulated carrier: a Twilio media stream, calls both ways, recordings."""
