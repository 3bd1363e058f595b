"""The fields of a tenant, one check each: what people write becomes what is kept. Pure.

Each ``read_*`` raises ValueError saying what is wrong with the value and what is expected.
"""

import difflib
import ipaddress
import re
import unicodedata
import zoneinfo
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import phonenumbers

LONGEST_NAME: Final = 200
LONGEST_TEXT: Final = 20_000
"""Characters of a greeting or of instructions."""
LONGEST_URL: Final = 2048
SHORTEST_SECRET: Final = 16
_SLUG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TOOL: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What the Realtime API takes as a function's name."""
_ORIGIN: Final = re.compile(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
"""Nothing that would mean more in a Content-Security-Policy."""
_USUAL_PORT: Final = {"https": "443", "http": "80"}
_LANGUAGE: Final = re.compile(r"([a-z]{2,3})(-[a-z]{4})?(-[a-z]{2}|-[0-9]{3})?", re.IGNORECASE)
_ISO_639_1: Final = """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de
    dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id
    ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu
    lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu
    rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr
    ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
""".split()  # noqa: SIM905 - 183 quoted pairs are not easier to read


def slug_of(name: str) -> str:
    """An id made of ``name``: Harbour Dental is harbour-dental; empty when there is no Latin letter or digit."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().replace("'", "")
    return "-".join(re.findall(r"[a-z0-9]+", plain.lower()))[:63].rstrip("-")


def normalise_number(text: str, region: str = "") -> str:
    """``text`` in E.164; ``region`` (ISO 3166-1, such as IL) is where a number without + is.

    A number must be possible where it belongs (its length is right); whether it is in use cannot be known.
    Raises ValueError, saying what is wrong with it.
    """
    try:
        number = phonenumbers.parse(text, region or None)
    except phonenumbers.NumberParseException:
        expected = "a number such as +15551234567" if region else "a number with + and country code, +15551234567"
        raise ValueError(f"{text!r} is not {expected}") from None
    if number.extension:
        raise ValueError(f"{text!r} has an extension, which cannot be dialled")
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        raise ValueError(f"{text!r} has the wrong length for a number of its country")
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def read_region(value: Any) -> str:
    """A country's two letters (ISO 3166-1), in capitals."""
    region = read_line(value).upper()
    if region not in ("", *phonenumbers.SUPPORTED_REGIONS):
        raise ValueError(f"{value!r} is not a country; its two letters are expected, such as US or IL")
    return region


def read_slug(value: Any) -> str:
    """A tenant's id: 1 to 63 of a-z, 0-9 and -, not beginning with -."""
    slug = read_line(value)
    if not _SLUG.fullmatch(slug):
        example = slug_of(slug) or "harbour-dental"
        raise ValueError(f"{slug!r} is not 1 to 63 of a-z, 0-9 and -, such as {example}")
    return slug


def read_name(value: Any) -> str:
    """A business's name, in any script."""
    name = read_line(value)
    if not name or len(name) > LONGEST_NAME:
        raise ValueError(f"1 to {LONGEST_NAME} characters are expected")
    return name


def read_numbers(value: Any, region: str) -> tuple[str, ...]:
    """Phone numbers in E.164, none twice; every wrong one is named."""
    numbers, wrong = [], []
    for item in _items(value):
        try:
            numbers.append(normalise_number(read_line(item), region))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return _distinct(numbers)


def read_language(value: Any) -> str:
    """A language code, in the usual case (pt-BR); two letters must be ISO 639-1; empty: unknown."""
    language = read_line(value).replace("_", "-")
    found = _LANGUAGE.fullmatch(language)
    if not language:
        return ""
    if not found or (len(found[1]) == len("en") and found[1].lower() not in _ISO_639_1):
        raise ValueError(f"{language!r} is not a language code, such as en, he or pt-BR (ISO 639-1, BCP 47)")
    base, script, region = found.groups(default="")
    return base.lower() + script.title() + region.upper()


def read_time_zone(value: Any) -> str:
    """The name of an IANA time zone."""
    zone = read_line(value)
    if zone not in _time_zones():
        raise ValueError(f"{zone!r} is not an IANA time zone, such as Europe/London{_nearest_zone(zone)}")
    return zone


@cache
def _time_zones() -> frozenset[str]:
    """Without the two names that mean another zone on each machine, or none."""
    return frozenset(zoneinfo.available_timezones() - {"localtime", "Factory"})


def zone_of(name: str) -> zoneinfo.ZoneInfo:
    """The time zone of a name that was checked on some machine; UTC where this one does not know it.

    Reads a file when it is asked for a zone the first time.
    """
    try:
        return zoneinfo.ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # OSError: a directory of zones
        return zoneinfo.ZoneInfo("UTC")


def _nearest_zone(zone: str) -> str:
    """The zone meant by a city alone, by spaces for underscores, by wrong case or a wrong letter."""
    wanted = zone.casefold().replace(" ", "_")
    zones = {known.casefold(): known for known in sorted(_time_zones())}
    cities = {known.rpartition("/")[2]: known for known in zones if not known.startswith(("etc/", "us/"))}
    city = wanted.rpartition("/")[2]
    if wanted in zones or city in cities:
        return f"; did you mean {zones[wanted if wanted in zones else cities[city]]}?"
    near = difflib.get_close_matches(wanted, zones, 1, 0.75) or [
        cities[found] for found in difflib.get_close_matches(city, cities, 1, 0.75)
    ]
    return f"; did you mean {zones[near[0]]}?" if near else ""


def read_text(value: Any) -> str:
    """A text of several lines, of at most LONGEST_TEXT characters."""
    text = _string(value).strip()
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"it has {len(text)} characters; at most {LONGEST_TEXT} are taken")
    if any(unicodedata.category(character) == "Cc" and character not in "\n\r\t" for character in text):
        raise ValueError("it has control characters in it")
    return text


def read_line(value: Any) -> str:
    """A text of one line."""
    line = _string(value).strip()
    if any(unicodedata.category(character) == "Cc" for character in line):
        raise ValueError(f"{line!r} has line breaks or control characters in it")
    return line


def read_voice(value: Any) -> str | None:
    """The name of a voice; empty: none."""
    return read_line(value) or None


def read_tools(value: Any) -> tuple[str, ...]:
    """Names of tools, built in ones or the user's own."""
    tools = [read_line(item) for item in _items(value)]
    if wrong := [tool for tool in tools if not _TOOL.fullmatch(tool)]:
        raise ValueError(f"{', '.join(map(repr, wrong))}: 1 to 64 letters, digits, _ and - are a tool's name")
    return _distinct(tools)


def read_webhook_url(value: Any) -> str | None:
    """An https URL without credentials; http only to what looks like a machine of one's own."""
    url = read_line(value)
    if not url:
        return None
    expected = "; expected is an https URL, such as https://example.com/calls"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not a URL ({error}){expected}") from None
    if parts.scheme not in ("https", "http") or not host or re.search(r"\s", url) or len(url) > LONGEST_URL:
        raise ValueError(f"{url!r} is not a URL of a web server{expected}")
    if "@" in parts.netloc:
        raise ValueError("it has a user or password in it, which would be logged; check the signature instead")
    if parts.scheme == "http" and not _is_inward(host):
        raise ValueError(
            f"{url!r} is not encrypted; http is for development only, to private and loopback addresses "
            f"(with AGENT_ALLOW_INWARD_WEBHOOKS=1){expected}"
        )
    return url


def _is_inward(host: str) -> bool:
    """Whether ``host`` looks like a machine of one's own. Where it leads is looked at on each delivery."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal"))


def read_secret(value: Any) -> str:
    """A key that signs webhooks."""
    secret = read_line(value)
    if len(secret) < SHORTEST_SECRET or not secret.isascii() or " " in secret:
        raise ValueError(f"at least {SHORTEST_SECRET} ASCII characters without spaces are expected")
    return secret


def read_lines(value: Any) -> tuple[str, ...]:
    """A list of short texts."""
    return _distinct([read_line(item) for item in _items(value)])


def read_origins(value: Any) -> tuple[str, ...]:
    """Sites as browsers write them, in lower case: a scheme, a host, and a port that is not the usual one."""
    return _distinct([_origin(read_line(item)) for item in _items(value)])


def _origin(text: str) -> str:
    """Http has no microphone, but on one's own machine. Raises ValueError."""
    site = text.lower().rstrip("/")
    found = _ORIGIN.fullmatch(site)
    if not found:
        raise ValueError(f"{text!r} is not a site, such as https://shop.example")
    scheme, host, port = found.groups()
    if scheme == "http" and not _is_inward(host.strip("[]")):
        raise ValueError(f"{text!r}: browsers give a page of http no microphone; https is expected")
    return site.removesuffix(f":{port}") if port == _USUAL_PORT[scheme] else site


def read_lookup(value: Any) -> str:
    """How much ``lookup_caller`` tells of who calls from a known number."""
    word = read_line(value).lower()
    if word not in ("guarded", "open"):
        raise ValueError(f"{value!r} is neither guarded nor open")
    return word


def read_yes_or_no(value: Any) -> bool:
    """A bool, or a word for it."""
    if isinstance(value, bool):
        return value
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}
    word = str(value).strip().lower()
    if word not in known:
        raise ValueError(f"{value!r} is neither yes nor no")
    return known[word]


def _items(value: Any) -> list[Any]:
    if isinstance(value, str):
        divider = ";" if ";" in value else ","
        return [item for item in re.split(rf"[{divider}\n]", value) if item.strip()]
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ValueError(f"{value!r} is not a list")  # noqa: TRY004 - the one error of all checks
    return list(value)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")  # noqa: TRY004 - the one error of all checks
    return value


def _distinct(items: list[str]) -> tuple[str, ...]:
    twice = sorted({item for item in items if items.count(item) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is there twice")
    if "" in items:
        raise ValueError("an item of the list is empty")
    return tuple(items)
