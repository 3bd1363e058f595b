"""The cases of the Autobahn test suite for WebSocket peers, sections 1 to 7 and 9, written down as data.

Source: https://github.com/crossbario/autobahn-testsuite (autobahntestsuite/case). A case is the frames that a
peer sends and what must come of them: messages, pings, pongs, at the end the peer's close or the code of ours.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from agent.wire.frames import NO_CODE, Closed, Ping, Pong

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
KOSME = bytes.fromhex("cebae1bdb9cf83cebcceb5")
"""A Greek word of five letters in eleven bytes."""
SPECIAL = "Hello-µ@ßöäüàá-UTF-8!!".encode()


@attrs.frozen
class Frame:
    """A frame as it is sent, before masking."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    reserved: int = 0


@attrs.frozen
class Case:
    """``end``: None where the connection goes on, the peer's close, or the code that we close with."""

    id: str
    frames: tuple[Frame, ...]
    told: tuple[object, ...] = ()
    end: Closed | int | None = None


def _case(case: str, *frames: Frame, told: tuple[object, ...] = (), end: Closed | int | None = None) -> Case:
    return Case(case, frames, told, end)


def _text(payload: bytes | str, *, fin: bool = True, reserved: int = 0) -> Frame:
    raw = payload.encode() if isinstance(payload, str) else payload
    return Frame(TEXT, raw, fin, reserved)


def _more(payload: bytes | str, *, fin: bool = False) -> Frame:
    raw = payload.encode() if isinstance(payload, str) else payload
    return Frame(CONTINUATION, raw, fin)


def _close(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, code.to_bytes(2, "big") + reason)


def _octets(payload: bytes) -> tuple[Frame, ...]:
    """A text message with a fragment for each byte."""
    parts = [payload[index : index + 1] for index in range(len(payload))]
    return (_text(parts[0], fin=False), *map(_more, parts[1:]), _more(b"", fin=True))


def _framing() -> Iterator[Case]:
    for number, length in enumerate((0, 125, 126, 127, 128, 65535, 65536), 1):
        yield _case(f"1.1.{number}", _text("*" * length), told=("*" * length,))
        yield _case(f"1.2.{number}", Frame(BINARY, b"\xfe" * length), told=(b"\xfe" * length,))


def _pings() -> Iterator[Case]:
    odd = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
    for case, payload in (("2.1", b""), ("2.2", b"Hello, world!"), ("2.3", odd), ("2.4", b"\xfe" * 125)):
        yield _case(case, Frame(PING, payload), told=(Ping(payload),))
    yield _case("2.5", Frame(PING, b"\xfe" * 126), end=1002)
    yield _case("2.7", Frame(PONG), told=(Pong(b""),))
    yield _case("2.8", Frame(PONG, b"unsolicited"), told=(Pong(b"unsolicited"),))
    yield _case("2.9", Frame(PONG, b"un"), Frame(PING, b"p"), told=(Pong(b"un"), Ping(b"p")))
    ten = tuple(b"payload-%d" % number for number in range(10))
    yield _case("2.10", *(Frame(PING, each) for each in ten), told=tuple(map(Ping, ten)))


def _reserved() -> Iterator[Case]:
    hello = "Hello, world!"
    yield _case("3.1", _text(hello, reserved=1), end=1002)
    for reserved in (2, 3, 4):
        frames = _text(hello), _text(hello, reserved=reserved), Frame(PING)
        yield _case(f"3.{reserved}", *frames, told=(hello,), end=1002)
    yield _case("3.5", Frame(BINARY, b"\x00\xff\xfe", reserved=5), end=1002)
    yield _case("3.6", Frame(PING, b"Hello", reserved=6), end=1002)
    yield _case("3.7", Frame(CLOSE, b"", reserved=7), end=1002)


def _opcodes() -> Iterator[Case]:
    for section, first in (("4.1", 3), ("4.2", 11)):
        yield _case(f"{section}.1", Frame(first), end=1002)
        yield _case(f"{section}.2", Frame(first + 1, b"reserved opcode payload"), end=1002)
        for number in (3, 4, 5):
            frames = _text("Hello"), Frame(first + number - 1, b"x" * (number - 3)), Frame(PING)
            yield _case(f"{section}.{number}", *frames, told=("Hello",), end=1002)


def _fragments() -> Iterator[Case]:
    one, two = _text("fragment1", fin=False), _more("fragment2", fin=True)
    whole, ping = "fragment1fragment2", Frame(PING, b"ping payload")
    yield _case("5.1", Frame(PING, b"fragment1", fin=False), _more("fragment2", fin=True), end=1002)
    yield _case("5.2", Frame(PONG, b"fragment1", fin=False), _more("fragment2", fin=True), end=1002)
    yield _case("5.3", one, two, told=(whole,))
    yield _case("5.6", one, ping, two, told=(Ping(b"ping payload"), whole))
    yield _case("5.9", _more("non-continuation", fin=True), _text("Hello"), end=1002)
    yield _case("5.12", _more("non-continuation"), _text("Hello"), end=1002)
    yield _case("5.15", one, two, _more("fragment3"), _text("fragment4"), told=(whole,), end=1002)
    yield _case("5.16", _more("fragment1"), _text("fragment2", fin=False), two, end=1002)
    yield _case("5.17", _more("fragment1", fin=True), _text("fragment2", fin=False), two, end=1002)
    yield _case("5.18", one, _text("fragment2"), end=1002)
    frames = one, _more("2"), Frame(PING, b"a"), _more("3"), _more("4"), Frame(PING, b"b"), _more("5", fin=True)
    yield _case("5.19", *frames, told=(Ping(b"a"), Ping(b"b"), "fragment12345"))


VALID_UTF8 = {
    "6.7.1": "00",
    "6.7.2": "c280",
    "6.7.3": "e0a080",
    "6.7.4": "f0908080",
    "6.9.1": "7f",
    "6.9.2": "dfbf",
    "6.9.3": "efbfbf",
    "6.9.4": "f48fbfbf",
    "6.11.1": "ed9fbf",
    "6.11.2": "ee8080",
    "6.11.3": "efbfbd",
    "6.11.4": "f48fbfbf",
    "6.22.1": "efbfbe",
    "6.22.2": "efbfbf",
    "6.22.3": "f09fbfbe",
    "6.22.34": "f48fbfbf",
    "6.23.1": "efbfb9",
    "6.23.7": "efbfbd",
}
INVALID_UTF8 = {
    "6.8.1": "f888808080",
    "6.8.2": "fc8480808080",
    "6.10.1": "f7bfbfbf",
    "6.10.2": "fbbfbfbfbf",
    "6.10.3": "fdbfbfbfbfbf",
    "6.11.5": "f4908080",
    "6.12.1": "80",
    "6.12.2": "bf",
    "6.12.3": "80bf",
    "6.12.4": "80bf80",
    "6.12.8": bytes(range(0x80, 0xC0)).hex(),
    "6.13.1": b" ".join(bytes([lead]) for lead in range(0xC0, 0xE0)).hex(),
    "6.13.2": b" ".join(bytes([lead]) for lead in range(0xE0, 0xF0)).hex(),
    "6.13.3": b" ".join(bytes([lead]) for lead in range(0xF0, 0xF8)).hex(),
    "6.13.4": b" ".join(bytes([lead]) for lead in range(0xF8, 0xFC)).hex(),
    "6.13.5": "fc20fd",
    "6.14.1": "c0",
    "6.14.2": "e080",
    "6.14.3": "f08080",
    "6.14.4": "f8808080",
    "6.14.5": "fc80808080",
    "6.14.6": "df",
    "6.14.7": "efbf",
    "6.14.8": "f7bfbf",
    "6.14.9": "fbbfbfbf",
    "6.14.10": "fdbfbfbfbf",
    "6.15.1": "c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf",
    "6.16.1": "fe",
    "6.16.2": "ff",
    "6.16.3": "fefeffff",
    "6.17.1": "c0af",
    "6.17.2": "e080af",
    "6.17.3": "f08080af",
    "6.17.4": "f8808080af",
    "6.17.5": "fc80808080af",
    "6.18.1": "c1bf",
    "6.18.2": "e09fbf",
    "6.18.3": "f08fbfbf",
    "6.18.4": "f887bfbfbf",
    "6.18.5": "fc83bfbfbfbf",
    "6.19.1": "c080",
    "6.19.2": "e08080",
    "6.19.3": "f0808080",
    "6.19.4": "f880808080",
    "6.19.5": "fc8080808080",
    "6.20.1": "eda080",
    "6.20.2": "edadbf",
    "6.20.3": "edae80",
    "6.20.4": "edafbf",
    "6.20.5": "edb080",
    "6.20.6": "edbe80",
    "6.20.7": "edbfbf",
    "6.21.1": "eda080edb080",
    "6.21.2": "eda080edbfbf",
    "6.21.3": "edadbfedb080",
    "6.21.4": "edadbfedbfbf",
    "6.21.5": "edae80edb080",
    "6.21.6": "edae80edbfbf",
    "6.21.7": "edafbfedb080",
    "6.21.8": "edafbfedbfbf",
}


def _utf8() -> Iterator[Case]:
    yield _case("6.1.1", _text(""), told=("",))
    yield _case("6.1.2", _text("", fin=False), _more(""), _more("", fin=True), told=("",))
    middle = _text("", fin=False), _more("middle frame payload"), _more("", fin=True)
    yield _case("6.1.3", *middle, told=("middle frame payload",))
    yield _case("6.2.1", _text(SPECIAL), told=(SPECIAL.decode(),))
    yield _case("6.2.2", _text(SPECIAL[:8], fin=False), _more(SPECIAL[8:], fin=True), told=(SPECIAL.decode(),))
    yield _case("6.2.3", *_octets(SPECIAL), told=(SPECIAL.decode(),))
    yield _case("6.2.4", *_octets(KOSME), told=(KOSME.decode(),))
    bad = KOSME + b"\xed\xa0\x80edited"
    yield _case("6.3.1", _text(bad), end=1007)
    yield _case("6.3.2", *_octets(bad), end=1007)
    yield _case("6.4.1", _text(KOSME, fin=False), _more(b"\xf4\x90\x80\x80"), _more("edited", fin=True), end=1007)
    yield _case("6.4.2", _text(KOSME + b"\xf4", fin=False), _more(b"\x90"), _more("edited", fin=True), end=1007)
    for length in range(1, len(KOSME) + 1):
        valid = length in (2, 5, 7, 9, 11)
        told = (KOSME[:length].decode(),) if valid else ()
        yield _case(f"6.6.{length}", _text(KOSME[:length]), told=told, end=None if valid else 1007)
    for case, text in VALID_UTF8.items():
        yield _case(case, _text(bytes.fromhex(text)), told=(bytes.fromhex(text).decode(),))
    for case, text in INVALID_UTF8.items():
        yield _case(case, _text(bytes.fromhex(text)), end=1007)


def _closing() -> Iterator[Case]:
    normal, bye = _close(1000), Closed(1000, "")
    yield _case("7.1.1", _text("Hello World!"), normal, told=("Hello World!",), end=bye)
    yield _case("7.1.2", normal, normal, end=bye)
    yield _case("7.1.3", normal, Frame(PING), end=bye)
    yield _case("7.1.4", normal, _text("Hello World!"), end=bye)
    yield _case("7.1.5", _text("fragment1", fin=False), normal, _more("fragment2", fin=True), end=bye)
    large = "BAsd7&jh23" * 26_214
    yield _case("7.1.6", _text(large), normal, Frame(PING), told=(large,), end=bye)
    yield _case("7.3.1", Frame(CLOSE), end=Closed(NO_CODE, ""))
    yield _case("7.3.2", Frame(CLOSE, b"a"), end=1002)
    yield _case("7.3.3", normal, end=bye)
    yield _case("7.3.4", _close(1000, b"Hello World!"), end=Closed(1000, "Hello World!"))
    yield _case("7.3.5", _close(1000, b"*" * 123), end=Closed(1000, "*" * 123))
    yield _case("7.3.6", _close(1000, b"*" * 124), end=1002)
    yield _case("7.5.1", _close(1000, KOSME + b"\xed\xa0\x80edited"), end=1007)
    good = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    for number, code in enumerate(good, 1):
        yield _case(f"7.7.{number}", _close(code), end=Closed(code, ""))
    for number, code in enumerate((0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999), 1):
        yield _case(f"7.9.{number}", _close(code), end=1002)
    yield _case("7.13.1", _close(5000), end=1002)
    yield _case("7.13.2", _close(65535), end=1002)


def _sizes() -> Iterator[Case]:
    large = "*" * 262_144
    yield _case("9.1.2", _text(large), told=(large,))
    yield _case("9.2.2", Frame(BINARY, large.encode()), told=(large.encode(),))
    for number, size in enumerate((4096, 16_384, 65_536), 3):
        parts = [large[start : start + size] for start in range(0, len(large), size)]
        frames = _text(parts[0], fin=False), *map(_more, parts[1:]), _more("", fin=True)
        yield _case(f"9.3.{number}", *frames, told=(large,))
    yield _case("over the limit", _text("*" * (2 * 1024 * 1024 + 1)), Frame(PING), end=1009)
    half = "*" * (1024 * 1024)
    yield _case("over the limit in parts", _text(half, fin=False), _more(half), _more("*", fin=True), end=1009)


CASES: tuple[Case, ...] = (
    *_framing(),
    *_pings(),
    *_reserved(),
    *_opcodes(),
    *_fragments(),
    *_utf8(),
    *_closing(),
    *_sizes(),
)
