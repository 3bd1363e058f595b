"""Names, cities and services in what people say on the phone, as speech recognition writes it. Pure, English.

Precision comes first: a wrong name is worse than none, so words that may be anything else are no names. What was
asked last is the context: a bare "Miller." is a name only after a question for one. Recognition punctuates, and
capitalises people and places; text without any capitals is read too where the words around it leave no doubt.
Every pattern is linear in the length of the text.
"""

import enum
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final


class Slot(enum.StrEnum):
    """The particulars a receptionist asks for, in the order of asking."""

    NAME = "name"
    CITY = "city"
    SERVICE = "service"
    APPOINTMENT = "appointment"


DAY: Final = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
MONTH: Final = r"(?:january|february|march|april|may|june|july|august|september|october|november|december)"
QUESTION_OPENING: Final = re.compile(
    r"^\W*(?:what|when|where|who|how|which|why|do|does|did|is|are|can|could|would|will)\b", re.IGNORECASE
)
_LONGEST_LINE: Final = 4000
"""More of one line is not looked at: nobody gives their name in the fifth minute of a monologue."""
_LONGEST_SMALL: Final = 3
"""Words of a name or place written without capitals."""
_LONGEST_SERVICE: Final = 4
_MOST_CLAUSES: Final = 8
"""An answer that begins later is not bare."""
_SHORTEST_SERVICE: Final = 3

_COMMON: Final = frozenset(
    """
    a about absolutely account address african afternoon again agent ah aha ai alexa all allo almost already
    alright also always am ambulance amen american an and anonymous another answer any anybody anymore
    anyone anything anyway apartment appointment are around as asian ask asking assistant at australian
    aware away awesome awful back bad be because been before being best better between bill billing blank
    bonjour boss bot both boyfriend bravo brazilian british broken brother buenos busy but by bye call
    caller calling came can can't canadian cancel cannot car cash catholic cell certainly check cheers
    chinese christmas ciao classified clear client clinic close closed come coming company complaint
    complete confidential confused congratulations connection cool correct cost could country course credit
    cross currently customer dad damn danke daughter day days dear december definitely dental dentist
    department dias did didn't different do does doesn't doing don't done down downtown driving due dutch
    each early easter eh eight eighteen eighty either eleven else emergency employee english enough er erm
    español european even evening ever every everybody everyone everything exactly excellent excuse
    expecting extension false family fantastic far february female few fifteen fifty fine first five flat
    for forget forgot forty four fourteen french friday fridays friend from fuck full general german get
    getting girlfriend give given glad go god goes going gone gonna good goodbye google gosh got gotta
    gracias grandma grandpa great greek guten had half hallo halloween hang hanukkah happy hardly has hasn't
    have haven't having he hear hearing hell hello help her here hers hey hi him his hm hmm hola hold home
    hospital hour hours house how huh human hundred hungry hurry husband i i'd i'll i'm i've if important
    impossible in indeed indian info information inside instead insurance interested interesting into
    invoice irish irrelevant is isn't israeli issue it it'll it's italian its ja january japanese jesus
    jewish job july just keep kid kids kind know korean last late later least leave less let let's like
    likely likewise line listen local long-time looking lost lots louder lovely lunch ma'am machine madam
    made mail make male man manager many march maybe me mean medicaid medical medicare member merci message
    mexican mhm midnight might mine minute minutes mm mobile mom moment monday mondays months more morning
    most mother much music muslim must mute my myself nah namaste name named names near necessary need nein
    never next nice night nine nineteen ninety no nobody none noon nope not nothing nothing's november now
    number numbers nurse obviously october of off office oh ok okay on once one only ooh open operator or
    order other oui our ours out over owner pain pardon parent parents particular patient payment perfect
    perhaps person phone please pleased pleasure police policy polish possible possibly precisely pretty
    price prices private probably problem put question quick quickly quiet quite ramadan rather ready real
    really receptionist recording refund repeat representative request reservation right robot running
    russian safe said same saturday saturdays say saying says school scottish second seconds secret see
    seeing september seriously service services seven seventeen seventy shalom she shit should si since sir
    siri sister six sixteen sixty so some somebody someone something sometime somewhere son soon sorry
    spanish speak speaking spell spelled spelling spelt still stop student stuff suburbs such sunday sundays
    super supervisor sure swedish system tag talk talking teeth tell ten terrible testing than thank thanks
    thanksgiving that that's the their them then there there's these they they're thing things think thirsty
    thirteen thirty this those though thousand three through thursday thursdays time to today together told
    tomorrow tonight too tooth toothache toothbrush total totally town tried true try trying tuesday
    tuesdays turkish twelve twenty two ugh uh um under understand understood unfortunately unknown until up
    upset urgent us used usual very village visitor voicemail wait waiting wanna want wanted was wasn't way
    we we'll we're we've wednesday wednesdays week weekend weeks well welsh went were what what's whatever
    when where which while who who's whoa whoever whole whom whose why wife with without woman won't
    wonderful work working worried would wow wrong yeah year years yep yes yesterday yet you you'd you'll
    you're you've your yours yourself yup zero
    """.split()  # noqa: SIM905 - five hundred quoted words are not easier to read
)
"""Words that are neither people nor places, though they stand where those are said. Names that are words as well
(Will, Mark, Grace, April, Young) are not among them."""
_TREATMENTS: Final = frozenset(
    ["check-up", "checkup", "cleaning", "consultation", "filling", "root", "canal", "surgery", "treatment"]
)
"""Neither people nor places, but services."""
_NO_PLACE: Final = re.compile(
    rf"^city\b|\b(?:{DAY}s?|{MONTH}|summer|winter|spring|fall|dr|mr|mrs|ms|miss|mister|doctor|inc|ltd|llc|bank"
    r"|room|suite|building|floor|street|road|avenue|lane|drive|boulevard|accounting|sales|marketing|support|hr|it"
    r"|university|college|windows|google|facebook|instagram|yelp)\b",
    re.IGNORECASE,
)

_LETTER: Final = r"[^\W\d_]"
_CAPITAL: Final = r"[A-ZÀ-ÖØ-Þ]"
_WORD: Final = (
    r"(?!(?:Dr|Mr|Mrs|Ms|Prof|Rev|I)\b)(?:d'|al-)?"
    rf"{_CAPITAL}{_LETTER}{{0,30}}(?:(?:['-]|(?<=O)' ){_LETTER}{{1,30}}){{0,4}}"
)
_PARTICLES: Final = r"(?:(?:de|del|della|da|di|du|van|von|der|den|la|le|bin|ben|al|el|ter|dos|St\.) ){0,2}"
_TITLE: Final = r"(?:(?:Dr|Mr|Mrs|Ms|Prof|Rev)\.? |(?:Doctor|Professor|Miss|Mister|Rabbi|Father|Captain) )"
_NAME: Final = rf"(?:{_TITLE}?{_PARTICLES}{_WORD}(?: (?:{_CAPITAL}\. )?{_PARTICLES}{_WORD}){{0,3}})"
_PLACE: Final = (
    rf"(?:(?:St\. )?{_WORD}(?:[ -](?:(?:upon|on|under|de|la|del|of|sur|am|an|der)[ -]){{0,2}}{_WORD}){{0,2}})"
)
_SMALL: Final = rf"{_LETTER}[^\W\d_A-Z'-]*(?:['-]{_LETTER}+)*"
_BORDER: Final = r"(?=[.,!?;]|$| (?i:and|but|calling|speaking|here|from|i|i'm|so|please)\b)"

_FILLER: Final = (
    r"(?:yes|yeah|yep|no|nope|sure|well|okay|ok|right|so|and|u+m+|u+h+|e+r+m?|hm+|oh|ah|sorry|of course|actually"
    r"|certainly|absolutely|alright|all right|i said|i mean|like|you know|let me see|ma'am|sir|please)"
)
_GREETING: Final = (
    r"(?:hello|hi|hey|hiya|good (?:morning|afternoon|evening|day)|thanks?(?: you)?|thank you so much)"
)
_OPENING: Final = rf"(?:^|[.,!?;] ?)['-]?(?i:(?:(?:{_FILLER}|{_GREETING}|there)[,.!-]{{0,3}} ){{0,4}})"
_STRONG: Final = (
    r"(?=,? (?i:calling|speaking)\b| (?i:here|from|again|on the (?:line|phone)|with (?:an?|one|two|double)\b))"
)

_NAME_SAID: Final = re.compile(
    r"\b(?i:(?:my|the) (?:full |first |last |sur)?name(?: is|'s| would be)"
    r"|(?:full |first |last |sur|^)name(?:'s| is)?"
    rf"|name's|you can call me|call me|i am called|i'm called|i go by)[,:]? (?i:{_FILLER},? )?({_NAME})(?!['\w])"
)
_NAME_STRONG: Final = re.compile(rf"{_OPENING}(?:(?i:this is|i'm|i am|it's|it is) )?({_NAME}){_STRONG}")
_NAME_LIKELY: Final = re.compile(rf"{_OPENING}(?i:this is|i'm|i am) ({_NAME}){_BORDER}")
_NAME_SMALL: Final = re.compile(rf"\b(?i:my (?:full |first )?name(?: is|'s)),? ({_SMALL}(?: {_SMALL})?){_BORDER}")
_FIRST_AND_LAST: Final = re.compile(
    rf"\b(?i:first name(?: is|'s)?)[,:]? ({_WORD})[.,;]? "
    rf"(?i:(?:and )?(?:my )?(?:last |sur)name(?: is|'s)?)[,:]? ({_WORD})"
)
_ADVERBS: Final = (
    r"(?:(?:over|up|down|out|right|just|currently|still|now|here|actually|calling|based|located|living) ){0,2}"
)
_IS_IN: Final = (
    rf"(?:(?:^|[.,!?;] ?|\b(?:i|we|and) ){_ADVERBS}(?:live|reside|come|call) (?:just |right |over )?"
    r"(?:in|near|from|outside(?: of)?)"
    rf"|\b(?:i'm|i am|we're|we are|i've been|i was calling) {_ADVERBS}(?:in|from|near|outside(?: of)?)"
    r"|\bcalling (?:you )?from|\b(?:my|our) (?:house|home|office|place) is (?:in|near)"
    r"|\b(?:my|our|the) (?:home ?)?(?:city|town)(?: is|'s))"
)
_CITY_SAID: Final = re.compile(
    rf"(?i:{_IS_IN}),? (?i:{_FILLER},? )?(?:(?i:the )?(?i:city|town) of )?({_PLACE})(?!['\w])"
)
_CITY_SMALL: Final = re.compile(
    rf"(?:\b(?:i|we) live in|\bmy (?:city|town) is) ({_SMALL}(?: {_SMALL})?)(?=[.,!?;]|$| and )"
)
_CITY_AFTER_NAME: Final = re.compile(rf"({_WORD}) (?:from|in) ({_PLACE})(?=[.,!?;]|$| (?i:and|calling|i|i'm)\b)")

_SPELT: Final = re.compile(
    rf"(?<![\w'-])(?:{_LETTER}(?:-{_LETTER}){{2,}}|{_CAPITAL}(?:[,.]? {_CAPITAL}){{2,}})(?![\w'-])"
)
_CLAUSES: Final = re.compile(r"((?<!\bSt)(?<!\bDr)(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bProf)(?<!\b[A-Z])\.|[,!?;])")
_ADDRESSED: Final = re.compile(rf"(?:{_FILLER} )*{_GREETING}\b.*", re.IGNORECASE)
_LEADS: Final = {
    Slot.NAME: r"it's|it is|that's|that is|that would be|that'd be|this is|i'm|i am|my name is|my name's"
    r"|the name is|name's|just",
    Slot.CITY: r"it's|it is|that's|that is|that would be|my city is|the city is|in|from"
    r"|(?:i'm|i am|we're|we are|i live|we live)(?= (?:\w+ )?(?:in|from|near|outside|over)\b)"
    r"|near|outside|of|just|the city of|calling|right|over|down|up",
    Slot.SERVICE: r"it's|it is|that's|that is|i'm|i am|for|just|on|an?|some|the",
}
_TAILS: Final = {
    Slot.NAME: r"from|in|and|with|without|as in|spelled|spelt|speaking|here|calling|please"
    r"|is my (?:full )?name|is the name",
    Slot.CITY: r"and|with|as in|spelled|spelt|near|area|right now|please|at the moment|is where"
    r"|is my (?:city|town)",
    Slot.SERVICE: r"please",
}
_HEAD: Final = {
    slot: re.compile(rf"(?:(?:{_FILLER}|{leads})\b[ ,:-]*)*", re.IGNORECASE) for slot, leads in _LEADS.items()
}
_TAIL: Final = {slot: re.compile(rf" (?:{tails})\b", re.IGNORECASE) for slot, tails in _TAILS.items()}
_WHOLE: Final = {Slot.NAME: re.compile(_NAME), Slot.CITY: re.compile(_PLACE)}
_SMALL_WHOLE: Final = re.compile(rf"{_SMALL}(?: {_SMALL}){{0,{_LONGEST_SMALL - 1}}}")

_SERVICE: Final = re.compile(
    r"\b(?:book|need|want|like|have|get|interested in|looking for|appointment for|come in for|schedule)"
    r" (?:to (?:book|have|get|schedule) )?(?:an? |some |my )?((?:[a-z-]+ ){0,2}?[a-z-]+)(?= (?:for|on|at|in|next"
    r"|this|tomorrow|today|please|and|,)\b|[.,!?]|$)",
    re.IGNORECASE,
)
_NO_SERVICE: Final = re.compile(
    r"\b(?:appointments?|know|ask|speak|talk|book|schedule|that|it|you|me|us|my|i|information|help|question|call|one"
    rf"|bye|time|nice|good|day|make|see|to|hours?|address|prices?|for|thanks?|thank|all|{DAY}|{MONTH})\b",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """``text`` as the patterns read it: with ASCII apostrophes, and not longer than a line is."""
    return text[:_LONGEST_LINE].replace("\u2019", "'").strip()


def find_name(text: str, asked: Slot | None = None) -> str:
    """The name the speaker gives as their own; empty if none is sure. ``asked`` is what was just asked for."""
    said = _unspelt(plain(text))
    if both := _FIRST_AND_LAST.search(said):
        return f"{both[1]} {both[2]}"
    for pattern in (_NAME_SAID, _NAME_STRONG, *([] if asked is Slot.CITY else [_NAME_LIKELY])):
        for match in pattern.finditer(said):
            if name := _proper(match[1]):
                return name
    if (small := _NAME_SMALL.search(said)) and (name := _proper(small[1])):
        return name.title()
    return _bare(said, asked) if asked is Slot.NAME else ""


def find_city(text: str, asked: Slot | None = None) -> str:
    """The place the speaker says they are in or from; empty if none is sure. ``asked`` as for ``find_name``."""
    said = plain(text)
    if not QUESTION_OPENING.match(said):
        for match in _CITY_SAID.finditer(said):
            if city := _place(match[1]):
                return city
        for match in _CITY_AFTER_NAME.finditer(said):
            if not _is_common(match[1]) and (city := _place(match[2])):
                return city
        if (small := _CITY_SMALL.search(said)) and (city := _place(small[1])):
            return city.title()
    return "" if asked is not Slot.CITY or find_name(said, asked) else _bare(said, asked)


def find_service(text: str, services: Sequence[str]) -> str:
    """The last of ``services`` that is named in ``text``, in any language; "check-up" and "check up" are one."""
    folded = f" {_folded(text)} "
    joined = folded.replace(" ", "")
    found = [
        (place, len(key), service)
        for service in services
        if len(key := _service_key(service)) >= _SHORTEST_SERVICE
        if (place := max(folded.rfind(f" {key} "), folded.rfind(f" {key}s "))) >= 0
        or (" " in key and (place := joined.rfind(key.replace(" ", ""))) >= 0)
        # Other scripts join words with prepositions, or do not divide them at all.
        or (not key.isascii() and (place := folded.rfind(key)) >= 0)
    ]
    return max(found)[2] if found else ""


def find_wish(text: str, asked: Slot | None = None) -> str:
    """What the caller says they would like, in their own words; of services nobody listed."""
    said = plain(text)
    if QUESTION_OPENING.match(said):
        return ""
    for match in _SERVICE.finditer(said):
        if not _NO_SERVICE.search(match[1]):
            return match[1].strip().lower()
    return "" if asked is not Slot.SERVICE or find_name(said) else _bare(said, asked)


def _bare(said: str, asked: Slot) -> str:
    """What is left of "It's Miller." or "Uh, Boston, please" without the words around it."""
    if QUESTION_OPENING.match(said):
        return ""
    pieces = [*_CLAUSES.split(said, maxsplit=_MOST_CLAUSES), ""]
    for clause, end in zip(pieces[::2], pieces[1::2], strict=True):
        whole = clause.strip(" -\"'\N{HORIZONTAL ELLIPSIS}")
        if _ADDRESSED.fullmatch(whole) or end == "?":  # "Thanks, Anna." is said to Anna
            return ""
        core = _TAIL[asked].split(_HEAD[asked].sub("", f"{whole} ", count=1), maxsplit=1)[0].strip()
        if core and not core.lower().startswith("not "):
            return _whole(core, asked, small=said.islower())
    return ""


def _whole(core: str, asked: Slot, *, small: bool) -> str:
    """``core`` if it is a name, a place or a service and nothing besides; ``small``: nothing is capitalised."""
    words = core.split()
    if asked is Slot.SERVICE:
        wish = core.lower()
        sure = len(words) <= _LONGEST_SERVICE and not _NO_SERVICE.search(wish)
        return wish if sure and not _COMMON.issuperset(wish.split()) else ""
    if any(map(_is_common, words)) or (asked is Slot.CITY and _NO_PLACE.search(core)):
        return ""
    if _WHOLE[asked].fullmatch(core):
        return "" if core.endswith("'s") else core
    return core.title() if small and _SMALL_WHOLE.fullmatch(core) else ""


def _proper(words: str) -> str:
    """``words`` up to the first that names neither people nor places; empty if that is the first, or "Anna's"."""
    kept: list[str] = []
    for word in words.split():
        if _is_common(word):
            break
        kept.append(word)
    name = " ".join(kept).rstrip("'")
    return "" if name.endswith("'s") else name


def _place(words: str) -> str:
    """``words`` if they can be a place: all of them, as "Harbour Insurance" is none, nor is "St. Patrick's"."""
    wrong = len(words) == 1 or words.endswith("'s") or any(map(_is_common, words.split()))
    return "" if wrong or _NO_PLACE.search(words) else words


def _is_common(word: str) -> bool:
    word = word.lower().strip(".'")
    return word in _TREATMENTS or word in _COMMON or _COMMON.issuperset(word.split("-"))


def _unspelt(text: str) -> str:
    """``text`` with "S-M-I-T-H" and "S M I T H" as the word they spell."""
    return _SPELT.sub(lambda found: re.sub(r"[^\w]", "", found[0]).capitalize(), text)


@lru_cache(1024)
def _service_key(service: str) -> str:
    return _folded(service)


def _folded(text: str) -> str:
    """Words in lower case without punctuation, divided by single spaces."""
    return " ".join(re.findall(r"\w+", text[:_LONGEST_LINE].casefold()))
