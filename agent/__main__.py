"""``python -m agent`` is ``call-agent``."""

from agent.app.cli.app import main

main()
