"""Simulated web services over TCP on loopback."""

from functools import partial
from typing import Any, cast

import trio
from fastapi import FastAPI
from hypercorn.config import Config
from hypercorn.trio import serve

_GRACE_S = 0.1
"""What is still being answered when the service ends is cut off after this."""


async def serve_app(
    app: FastAPI,
    port: int = 0,
    *,
    certfile: str | None = None,
    keyfile: str | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` on 127.0.0.1 until cancelled; with a certificate by https.

    ``task_status`` is started with its URL, without a slash at the end. Raises OSError if ``port`` is taken; 0
    takes a free one.
    """
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = config.accesslog = None
    config.graceful_timeout = _GRACE_S
    config.certfile, config.keyfile = certfile, keyfile
    async with trio.open_nursery() as nursery:
        # The two packages spell ASGI's types differently.
        [url] = await nursery.start(partial(serve, cast("Any", app), config))
        task_status.started(url.rstrip("/"))
