"""Words that are no turn of their own: what people say into a greeting, by language. Pure."""

import re
import unicodedata
from typing import Final

_WORDS: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SMALL_TALK: Final = {
    "ar": "مرحبا أهلا السلام عليكم وعليكم نعم ألو آه طيب",
    "de": "hallo guten tag morgen abend grüß gott servus moin ja hm mhm äh ähm aha okay ok",
    "en": "hello hi hey hiya yes yeah yep hm hmm mm mhm uh um huh oh ah ok okay right sure good morning afternoon"
    " evening there",
    "es": "hola buenas buenos días dias tardes noches sí si aló bueno diga eh ah ajá vale",
    "fr": "allô allo bonjour bonsoir salut oui euh ah hm ouais d'accord",
    "he": "שלום הלו היי הי כן אהלן אה אהה אממ טוב בוקר ערב צהריים",
    "it": "pronto ciao buongiorno buonasera salve sì si ehm ah",
    "nl": "hallo hoi goedemorgen goedemiddag goedenavond dag ja eh hm oké",
    "pt": "olá ola oi alô alo bom boa dia tarde noite sim eh ah",
    "ru": "алло алё привет здравствуйте добрый день вечер утро да угу ага эм",
}


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


_ALL: Final = {language: frozenset(_WORDS.findall(_folded(words))) for language, words in _SMALL_TALK.items()}
_ANY: Final = frozenset().union(*_ALL.values())


def has_substance(text: str, language: str) -> bool:
    """Whether ``text`` has a word that is no greeting and no backchannel of the language, a BCP 47 tag.

    A language that is not known here is taken for any of those that are. Scripts without spaces are one word.
    """
    small_talk = _ALL.get(language.partition("-")[0].casefold(), _ANY)
    return any(word not in small_talk for word in _WORDS.findall(_folded(text)))
