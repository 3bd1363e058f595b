"""The agent's two neighbours, simulated: the carrier on one side, the speech-to-speech model on the other.

They speak the real protocols over real sockets or, in virtual time, over memory streams (DESIGN D12). The
project's own tests and demo use them; so can the tests of whoever builds on the agent:

* ``agent.sim.carrier.stream``: one media stream, with playback buffer, marks, clear, DTMF and network faults;
* ``agent.sim.carrier.twilio``: the rest of Twilio: REST API, signed webhooks, inbound and outbound calls;
* ``agent.sim.model.server``: an OpenAI Realtime server with a script of answers and a list of faults;
* ``agent.sim.profile``: how unkind both are: ``kind``, or ``real`` with a seed;
* ``agent.sim.memory``: both over memory streams, for pytest-trio's ``autojump_clock``;
* ``python -m agent.sim --help``: the same from the command line.
"""
