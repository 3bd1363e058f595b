"""A speech-to-speech model of our own, speaking the OpenAI Realtime protocol on loopback (DESIGN D15).

It lets the agent answer without a key: speech detection, speech-to-text, a rule-based receptionist and
text-to-speech, in a process of its own so that its CPU never disturbs a call's pacing. English only. It needs
the ``[local]`` extra, except ``agent.local.process``, which starts it and imports nothing of the extra.
"""
