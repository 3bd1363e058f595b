"""SQL by subject: each function works on a connection of its caller, who owns the transaction."""
