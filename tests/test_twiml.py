"""What Twilio is told to do."""

from xml.etree import ElementTree as ET

from agent import twiml


def test_a_call_is_connected_to_its_stream_and_to_nothing_after_it() -> None:
    root = ET.fromstring(twiml.connect_stream("wss://a.example/media-stream", 'a&b"<c>'))  # noqa: S314 - our own
    assert [child.tag for child in root] == ["Connect"]
    stream = root.find("Connect/Stream")
    assert stream is not None
    assert stream.attrib == {"url": "wss://a.example/media-stream"}
    [parameter] = stream
    assert parameter.attrib == {"name": "token", "value": 'a&b"<c>'}


def test_a_refused_caller_is_told_so() -> None:
    root = ET.fromstring(twiml.refuse_politely())  # noqa: S314 - our own
    assert [child.tag for child in root] == ["Say", "Hangup"]
    assert "busy" in (root[0].text or "")


def test_a_machine_is_hung_up_on() -> None:
    assert [child.tag for child in ET.fromstring(twiml.hang_up())] == ["Hangup"]  # noqa: S314 - our own
