"""``call-agent demo``: a simulated carrier phones the agent on this machine, and what was heard is shown.

The agent's server and the embedded model run in processes of their own, as they would for a real call. The caller
speaks with a synthesised voice (or the user's recording), reacts to what it hears, and interrupts.
"""
