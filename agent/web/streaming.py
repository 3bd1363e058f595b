"""Answers that a client may leave in the middle."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from typing_extensions import override


class StreamedResponse(StreamingResponse):
    """One whose pieces come from a generator, which is closed also when the client leaves in the middle."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], *more: Any) -> None:
        super().__init__(pieces, *more)
        self._pieces = pieces

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._pieces):
            await super().__call__(scope, receive, send)
