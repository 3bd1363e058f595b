"""What answers at a URL that should lead to a running server of ours, and no more of it than that takes."""

from typing import Final

import httpx
import trio

MOST_BYTES: Final = 4096
"""Of an answer: whoever answers there need not be ours. /readyz says 14 bytes."""


async def ask_readiness(base: str, *, within_s: float) -> tuple[int, bytes]:
    """The status of ``base``/readyz and the beginning of its body, as it is on the wire.

    Raises httpx.HTTPError or trio.TooSlowError when nothing answers within ``within_s``, ValueError for what is
    no URL. A cancel leaves nothing open.
    """
    read = bytearray()
    headers = {"Accept-Encoding": "identity"}
    with trio.fail_after(within_s):
        async with (
            httpx.AsyncClient(timeout=within_s, follow_redirects=False) as client,
            client.stream("GET", f"{base}/readyz", headers=headers) as answer,
        ):
            with trio.CancelScope() as reading:
                async for part in answer.aiter_raw():
                    read += part
                    if len(read) >= MOST_BYTES:
                        reading.cancel(reason="enough is known")
            return answer.status_code, bytes(read[:MOST_BYTES])
