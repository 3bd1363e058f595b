"""The browser as a phone: its messages, its connections to one call, who may phone, and the page."""
