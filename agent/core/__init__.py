"""What every room shares: units, errors, records, settings, events, durable files."""
