"""The command line: commands, what they do, and how it is shown."""
