"""Where a server listens, and how it says so."""

from typing import Final

import trio

from agent.core.event_log import EventLog
from agent.core.settings import Settings

_ADVICE: Final = "metrics and API description are not served: set AGENT_ADMIN_PORT to a free port, or to 0"


async def listen(settings: Settings) -> list[trio.SocketListener]:
    """Listen where calls come. Raises OSError when the port is taken."""
    return await trio.open_tcp_listeners(settings.port, host=settings.host)


async def listen_for_operators(settings: Settings, events: EventLog) -> list[trio.SocketListener]:
    """Listen on the operator's port; nowhere, and said so, when another server of this machine has it."""
    if not settings.admin_port:
        return []
    where = f"{settings.admin_host}:{settings.admin_port}"
    try:
        listeners = await trio.open_tcp_listeners(settings.admin_port, host=settings.admin_host)
    except OSError as error:
        events.emit("ADMIN_NOT_SERVED", "warning", where=where, error=str(error), advice=_ADVICE)
        return []
    events.emit("ADMIN_SERVED", url=url_of(listeners[0]))
    return listeners


def say_where(settings: Settings, url: str) -> None:
    """One line on standard output, for people and for programs that asked for port 0; another for browsers."""
    base = settings.public_url or url
    model = "the embedded model" if settings.uses_embedded_model else settings.model
    print(  # noqa: T201  (the command's output, not a log)
        f"call-agent listens on {url} with {model}; Twilio webhook: POST {base}/voice/incoming", flush=True
    )
    if settings.browser:
        print(f"call-agent can be phoned in a browser: {url.replace('127.0.0.1', 'localhost')}/", flush=True)  # noqa: T201 - likewise


def url_of(listener: trio.SocketListener) -> str:
    """How it is reached from this machine."""
    host, port = listener.socket.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"
