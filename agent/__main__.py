"""``python -m agent`` is ``call-agent``."""

from agent.cli.app import main

main()
