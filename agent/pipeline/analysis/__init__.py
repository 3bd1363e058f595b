"""What a call was about: summary, name, city, service."""
