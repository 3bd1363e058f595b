"""Every error this package raises on purpose.

The tree is flat: catch the class you can do something about. Programming mistakes stay ``ValueError``,
``TypeError`` and ``AssertionError``.
"""

from collections.abc import Sequence


class AgentError(Exception):
    """Base of all errors raised on purpose by this package."""


class SettingsError(AgentError):
    """The settings cannot be used; the message names every wrong one and what to do about it."""


class LabelledError(AgentError):
    """``kind`` is a short stable label for counting, ``detail`` says more."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class MalformedMessageError(LabelledError):
    """A peer sent something its protocol does not allow."""


class SocketClosedError(AgentError):
    """The peer closed the WebSocket, or it broke; ``code`` is the RFC 6455 close code (1006: no close frame)."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"WebSocket closed: {code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class UnreadableAudioError(AgentError):
    """A caller's audio is not what was announced, or more than there can be; the message says why."""


class HandshakeRejectedError(AgentError):
    """The peer answered the WebSocket handshake with something else than 101; ``status`` is its HTTP status."""

    def __init__(self, status: int, body: str = "") -> None:
        super().__init__(f"WebSocket handshake answered with HTTP {status} {body}".rstrip())
        self.status = status
        self.body = body


class ModelUnavailableError(AgentError):
    """The model could not be reached, refused us, or ended the session for good."""


class CarrierError(AgentError):
    """The carrier's REST API refused a request; the message says which and why."""


class GenerationTooLongError(AgentError):
    """A single answer passed the limit of buffered audio (TX-7); that answer is ended, the call goes on."""


class LocalModelMissingError(AgentError):
    """The ``[local]`` extra is not installed; the message names the one command that installs it."""


class WeightsError(AgentError):
    """A file of the embedded model's weights is not the one it should be; the message says which."""


class AdmissionError(LabelledError):
    """A stream may not be served; ``detail`` says why."""


class DatabaseError(AgentError):
    """The database cannot be used: not reachable, not ours, or newer than this program; the message says why."""


class TenantError(AgentError):
    """A tenant's description is wrong; the message names every wrong field at once, ``faults`` lists them."""

    def __init__(self, summary: str, faults: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([f"{summary}:" if faults else summary, *faults]))
        self.faults = tuple(faults)


class ProviderError(AgentError):
    """The model provider's REST API refused a request or answered nonsense; a later try may do better."""


class NotReadyError(AgentError):
    """Something a post-call step needs is not there yet; it is looked for again, and no attempt is counted."""


class StepDeadError(AgentError):
    """A post-call step that no further attempt can help; the message is the reason kept in the ledger."""


class ModelGoneError(AgentError):
    """A post-call step's ``model`` is not there (any more); the message names the setting to mend."""

    def __init__(self, message: str, model: str) -> None:
        super().__init__(message)
        self.model = model


class DeliveryError(AgentError):
    """A webhook was not taken by its receiver; a later try may do better. The message says how it failed."""


class ToolArgumentsError(AgentError):
    """The model called a tool with arguments that do not fit; the message tells it what to do better."""


class ToolError(AgentError):
    """A tool cannot do what the model asked; the message is for the model, which finds words for the caller."""


class BoundError(ToolError):
    """A bound on what the model may do is reached; ``bound`` is its short name for the log."""

    def __init__(self, bound: str, message: str) -> None:
        super().__init__(message)
        self.bound = bound


def first_error(error: BaseException) -> BaseException:
    """The first single error in a group: the groups of nested nurseries hide which one it was."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def sole_error(group: ExceptionGroup[Exception]) -> Exception:
    """What ``except*`` caught, bare if it is one error alone."""
    return group.exceptions[0] if len(group.exceptions) == 1 else group
