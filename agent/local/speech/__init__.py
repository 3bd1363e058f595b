"""The embedded model's speech detection, speech-to-text and text-to-speech."""
