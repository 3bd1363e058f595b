"""``python -m agent`` is ``call-agent``."""

from agent.cli import main

main()
