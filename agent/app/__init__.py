"""What a process is made of: the server, the command line, the demo."""
