"""``call-agent bench``: the figures the product promises, measured on this machine.

The load run drives the real server in a process of its own; the simulators, in processes of theirs, see what a
carrier and a model see. ``figures`` makes numbers of what they saw, ``report`` a table of the numbers.
"""

from agent.bench.command import command

__all__ = ["command"]
