"""``python -m agent.local``: run the embedded model as a server of its own."""

from agent.local.server import main

if __name__ == "__main__":
    main()
