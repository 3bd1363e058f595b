"""The page in a real Chromium: what it costs, what it shows, and whether everybody can use it."""
