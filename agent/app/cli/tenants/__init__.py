"""``call-agent tenants``: the businesses whose calls are answered."""
