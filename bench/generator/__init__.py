"""The load: a carrier's callers and a speech-to-speech model, each a lean process on uvloop and picows.

They cost a fraction of what they measure, so that 200 calls fit on the one core beside the agent's. ``agent.sim``
is what users test with, knows faults and virtual time, and would cost as much as the agent.
"""
