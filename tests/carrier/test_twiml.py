"""What Twilio is told to do."""

from xml.etree import ElementTree as ET

import pytest

from agent.carrier import twiml

TWILIO_VOICES = {
    "de-DE": "Polly.Hans Polly.Marlene Polly.Vicki Google.de-DE-Wavenet-A Google.de-DE-Wavenet-B",
    "es-ES": "Polly.Conchita Polly.Enrique Polly.Lucia Google.es-ES-Wavenet-B Google.es-ES-Wavenet-C",
    "fr-FR": "Polly.Celine Polly.Lea Polly.Mathieu",
    "he-IL": "Google.he-IL-Wavenet-A Google.he-IL-Wavenet-B Google.he-IL-Wavenet-C Google.he-IL-Wavenet-D",
    "it-IT": "Polly.Bianca Polly.Carla Polly.Giorgio Google.it-IT-Wavenet-B Google.it-IT-Wavenet-C",
    "pt-BR": "Polly.Camila Polly.Ricardo Polly.Vitoria Google.pt-BR-Wavenet-B Google.pt-BR-Wavenet-C",
}
"""Voices that Twilio has for each language.

Sources: the names are those of ``Say.VoiceEnum`` and ``Say.LanguageEnum`` in Twilio's own C# library, which is
generated from its definition of TwiML (github.com/twilio/twilio-csharp, src/Twilio/TwiML/Voice/Say.cs at
02cffba); the language of a Polly voice is that of
https://docs.aws.amazon.com/polly/latest/dg/available-voices.html. The Python library has no such list: its
``Say`` takes any voice.
"""


def test_a_call_is_connected_to_its_stream_and_to_nothing_after_it() -> None:
    root = ET.fromstring(twiml.connect_stream("wss://a.example/media-stream", 'a&b"<c>', "https://a.example/s"))  # noqa: S314 - our own
    assert [child.tag for child in root] == ["Connect"]
    stream = root.find("Connect/Stream")
    assert stream is not None
    assert stream.attrib == {
        "url": "wss://a.example/media-stream",
        "statusCallback": "https://a.example/s",
        "statusCallbackMethod": "POST",
    }
    [parameter] = stream
    assert parameter.attrib == {"name": "token", "value": 'a&b"<c>'}


def test_a_refused_caller_is_told_so() -> None:
    root = ET.fromstring(twiml.refuse_politely())  # noqa: S314 - our own
    assert [child.tag for child in root] == ["Say", "Hangup"]
    assert "busy" in (root[0].text or "")


@pytest.mark.parametrize(
    ("language", "spoken", "word"),
    [("he", "he-IL", "בשימוש"), ("pt-PT", "pt-BR", "uso"), ("", None, "not in use"), ("tlh", None, "not in use")],
)
def test_a_refusal_is_in_the_language_of_who_is_called(language: str, spoken: str | None, word: str) -> None:
    root = ET.fromstring(twiml.refuse_politely(twiml.UNKNOWN_NUMBER, language))  # noqa: S314 - our own
    assert root[0].attrib.get("language") == spoken
    assert root[0].attrib.get("voice") == twiml.VOICES.get(spoken or "")
    assert twiml.has_words_in(language) is (spoken is not None)
    assert word in (root[0].text or "")


def test_every_language_we_speak_has_a_voice_of_twilios_that_speaks_it() -> None:
    """``<Say>`` fails where voice and language do not go together, and the caller would hear nothing (MO-3)."""
    assert twiml.VOICES.keys() == TWILIO_VOICES.keys()
    for language, voice in twiml.VOICES.items():
        assert voice in TWILIO_VOICES[language].split()
        assert twiml.has_words_in(language)


def test_all_we_say_is_there_in_every_language_that_has_a_voice() -> None:
    for words in (twiml.BUSY, twiml.UNAVAILABLE, twiml.UNKNOWN_NUMBER):
        assert words.keys() == {"en-US", *twiml.VOICES}
        assert len(set(words.values())) == len(words)


def test_a_transferred_call_is_dialled_on() -> None:
    root = ET.fromstring(twiml.dial("+15551234567"))  # noqa: S314 - our own
    assert [(child.tag, child.text) for child in root] == [("Dial", "+15551234567")]


def test_a_machine_is_hung_up_on() -> None:
    assert [child.tag for child in ET.fromstring(twiml.hang_up())] == ["Hangup"]  # noqa: S314 - our own
