"""What we tell Twilio to do with a call, in TwiML.

After ``<Connect>`` nothing follows: when our socket closes, Twilio would run it, and a ``<Pause>`` there
leaves the caller on a dead line.
"""

from collections.abc import Mapping
from typing import Final

from twilio.twiml.voice_response import Connect, VoiceResponse

TOKEN_PARAMETER: Final = "token"  # noqa: S105 - the parameter's name, not a token
_ENGLISH: Final = "en-US"
Words = Mapping[str, str]
"""A sentence in the languages we have it in, by the names Twilio's ``<Say>`` has for them."""
BUSY: Final[Words] = {
    _ENGLISH: "All our lines are busy right now. Please call again in a few minutes. Goodbye.",
    "de-DE": "Alle Leitungen sind besetzt. Bitte rufen Sie in einigen Minuten wieder an. Auf Wiederhören.",
    "es-ES": "Todas nuestras líneas están ocupadas. Vuelva a llamar en unos minutos, por favor. Adiós.",
    "fr-FR": "Toutes nos lignes sont occupées. Veuillez rappeler dans quelques minutes. Au revoir.",
    "he-IL": "כל הקווים שלנו תפוסים כרגע. אנא התקשרו שוב בעוד מספר דקות. להתראות.",
    "it-IT": "Tutte le linee sono occupate. La preghiamo di richiamare tra qualche minuto. Arrivederci.",
    "pt-BR": "Todas as nossas linhas estão ocupadas. Por favor, ligue novamente em alguns minutos. Até logo.",
}
UNAVAILABLE: Final[Words] = {
    _ENGLISH: "We are sorry, we cannot take your call right now. Please call again later. Goodbye.",
    "de-DE": "Es tut uns leid, wir können Ihren Anruf gerade nicht annehmen. Bitte rufen Sie später wieder an. "
    "Auf Wiederhören.",
    "es-ES": "Lo sentimos, ahora no podemos atender su llamada. Vuelva a llamar más tarde, por favor. Adiós.",
    "fr-FR": "Nous sommes désolés, nous ne pouvons pas vous répondre. Veuillez rappeler plus tard. Au revoir.",
    "he-IL": "אנו מצטערים, איננו יכולים לקבל את שיחתכם כרגע. אנא התקשרו שוב מאוחר יותר. להתראות.",
    "it-IT": "Siamo spiacenti, ora non possiamo rispondere. La preghiamo di richiamare più tardi. Arrivederci.",
    "pt-BR": "Desculpe, não podemos atender agora. Por favor, ligue novamente mais tarde. Até logo.",
}
UNKNOWN_NUMBER: Final[Words] = {
    _ENGLISH: "The number you have called is not in use. Goodbye.",
    "de-DE": "Die gewählte Rufnummer ist nicht vergeben. Auf Wiederhören.",
    "es-ES": "El número al que ha llamado no está en servicio. Adiós.",
    "fr-FR": "Le numéro que vous avez composé n'est pas attribué. Au revoir.",
    "he-IL": "המספר שחייגתם אינו בשימוש. להתראות.",
    "it-IT": "Il numero chiamato non è attivo. Arrivederci.",
    "pt-BR": "O número chamado não está em uso. Até logo.",
}
VOICES: Final[Mapping[str, str]] = {
    "de-DE": "Polly.Vicki",
    "es-ES": "Polly.Lucia",
    "fr-FR": "Polly.Lea",
    "he-IL": "Google.he-IL-Wavenet-A",
    "it-IT": "Polly.Bianca",
    "pt-BR": "Polly.Camila",
}
"""A voice for each language but English: ``<Say>`` fails with a voice that lacks the language, and the default
has few.

Source: https://www.twilio.com/docs/voice/twiml/say/text-speech; the tests hold it against Twilio's list.
"""


def connect_stream(url: str, token: str, status_callback: str) -> str:
    """Connect the call's audio, both ways, to the WebSocket at ``url``; ``token`` comes back in ``start``.

    ``status_callback`` is told by POST how the stream goes on.
    """
    connect = Connect()
    stream = connect.stream(url=url, status_callback=status_callback, status_callback_method="POST")
    stream.parameter(name=TOKEN_PARAMETER, value=token)
    return str(VoiceResponse().append(connect))


def has_words_in(language: str) -> bool:
    """Whether what we say in TwiML is said in ``language`` (a code such as he or pt-PT), and not in English."""
    return _spoken(language) != _ENGLISH


def refuse_politely(words: Words = BUSY, language: str = "") -> str:
    """Say why nobody can take the call, and hang up: the caller would take silence for a broken line.

    ``language`` is a code such as he or pt-PT; English if we do not have the words in it.
    """
    spoken = _spoken(language)
    voice = VOICES.get(spoken)
    response = VoiceResponse()
    response.say(words[spoken], **({"language": spoken, "voice": voice} if voice else {}))
    response.hangup()
    return str(response)


def reject_as_busy() -> str:
    """Do not take an inbound call: the caller hears that the line is busy, and nobody pays."""
    response = VoiceResponse()
    response.reject(reason="busy")
    return str(response)


def _spoken(language: str) -> str:
    return {name.partition("-")[0]: name for name in VOICES}.get(language.partition("-")[0].lower(), _ENGLISH)


def dial(number: str) -> str:
    """Connect the caller to ``number`` (E.164); the call ends with that conversation."""
    response = VoiceResponse()
    response.dial(number)
    return str(response)


def hang_up() -> str:
    """End the call at once: for an answering machine that was called."""
    response = VoiceResponse()
    response.hangup()
    return str(response)
