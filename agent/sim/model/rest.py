"""OpenAI's REST API as far as it is used, as an ASGI application: /models, /responses, /audio/transcriptions.

::

    api = OpenAiRest(delay_s=0.2, response_faults=deque([TOO_MANY_REQUESTS, NONSENSE_TEXT]))
    url = await nursery.start(serve_app, api.make_app())      # OPENAI_BASE_URL is f"{url}/v1"
    ...
    assert api.counts == {"responses": 2}

Sources: https://platform.openai.com/docs/api-reference/responses, .../audio/createTranscription, .../models/list.
"""

import io
import json
import wave
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
import trio
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from agent.core import provider_models

_MODELS: Final = (provider_models.REALTIME, provider_models.RECORDING, provider_models.SUMMARY)
Endpoint = Literal["responses", "transcriptions"]
SUMMARY: Final = "The caller asked for an appointment. It was agreed."
EXTRACTION: Final = {
    "name": "Dana Levi",
    "city": "Haifa",
    "service": "",
    "intent": "booking",
    "lead_status": "appointment",
    "follow_up": "",
}


@attrs.frozen
class ApiFault:
    """How the next request ends; whatever is left out is as usual.

    ``status`` with OpenAI's error ``code``, ``retry_after`` seconds as a header; ``body`` instead of the answer's
    JSON; ``text`` instead of the model's words; ``never``: no answer at all.
    """

    status: int = 200
    code: str = ""
    retry_after: str = ""
    body: bytes | None = None
    text: str | None = None
    never: bool = False


TOO_MANY_REQUESTS: Final = ApiFault(429, "rate_limit_exceeded", retry_after="1")
SERVER_FAILS: Final = ApiFault(500, "server_error")
WRONG_KEY: Final = ApiFault(401, "invalid_api_key")
MODEL_GONE: Final = ApiFault(404, "model_not_found")
NONSENSE_BODY: Final = ApiFault(body=b"<html>not JSON")
WRONG_SHAPE: Final = ApiFault(body=b'{"output": {"surprise": [1, 2]}}')
NONSENSE_TEXT: Final = ApiFault(text="{this is no JSON")
NEVER: Final = ApiFault(never=True)


@attrs.frozen
class ApiRequest:
    """One request; of an upload, ``body`` has the form's fields and the file's ``bytes`` and ``seconds``."""

    t_s: float
    endpoint: Endpoint
    body: dict[str, Any]
    answer: int


@attrs.define(eq=False, kw_only=True)
class OpenAiRest:
    """The application's state: what is answered, what is to go wrong, and what was asked."""

    summary: str = SUMMARY
    """The model's answer to whoever asks for free text."""
    extraction: Mapping[str, str] = attrs.field(factory=lambda: dict(EXTRACTION))
    """The model's answer to whoever asks for JSON."""
    transcripts: deque[str] = attrs.field(factory=deque)
    """What is heard in the next recordings; then, ``default_transcript``."""
    default_transcript: str = "Hello, I would like an appointment."
    delay_s: float = 0.0
    api_key: str | None = attrs.field(default=None, repr=False)
    """None: any key will do."""
    response_faults: deque[ApiFault] = attrs.field(factory=deque)
    transcription_faults: deque[ApiFault] = attrs.field(factory=deque)
    """One for each of the next requests."""
    models: dict[str, str | None] = attrs.field(factory=lambda: dict.fromkeys(_MODELS))
    """What is listed: each model and the date (YYYY-MM-DD) it ends, if that is announced. Others work as well."""
    gone: set[str] = attrs.field(factory=set)
    """Models that ended: neither listed nor to be used."""
    requests: list[ApiRequest] = attrs.field(factory=list)
    record: bool = True
    """Keep the requests; a benchmark needs only their ``counts``."""
    counts: Counter[str] = attrs.field(factory=Counter)
    """Requests that came in, by endpoint, answered or not."""

    def make_app(self) -> FastAPI:
        """The ASGI application; the base URL is its root or ``/v1``."""
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.get("/models")
        @app.get("/v1/models")
        async def models(request: Request) -> Response:
            return self._list_models(request)

        @app.post("/responses")
        @app.post("/v1/responses")
        async def responses(request: Request) -> Response:
            body = await request.json()
            return await self._answer(request, "responses", body, self.response_faults)

        @app.post("/audio/transcriptions")
        @app.post("/v1/audio/transcriptions")
        async def transcriptions(request: Request) -> Response:
            async with request.form() as form:
                body: dict[str, Any] = {name: value for name, value in form.items() if isinstance(value, str)}
                upload = form["file"]
                audio = b"" if isinstance(upload, str) else await upload.read()
            body |= {"bytes": len(audio), "seconds": _seconds(audio)}
            return await self._answer(request, "transcriptions", body, self.transcription_faults)

        @app.get("/counts")
        async def counts() -> dict[str, int]:
            return dict(self.counts)

        return app

    async def _answer(
        self, request: Request, endpoint: Endpoint, body: dict[str, Any], faults: deque[ApiFault]
    ) -> Response:
        came_s = trio.current_time()
        self.counts[endpoint] += 1
        fault = faults.popleft() if faults else ApiFault()
        if fault.never:
            await trio.sleep_forever()
        await trio.sleep(self.delay_s)
        if not self._admits(request):
            fault = WRONG_KEY
        elif body.get("model") in self.gone:
            fault = MODEL_GONE
        if fault.status >= 400:  # noqa: PLR2004  (HTTP's errors begin here)
            answer = _refusal(fault)
        elif fault.body is not None:
            answer = Response(fault.body, media_type="application/json")
        elif endpoint == "responses":
            answer = JSONResponse(self._response(body, fault.text))
        else:
            answer = JSONResponse(self._transcription(body, fault.text))
        if self.record:
            self.requests.append(ApiRequest(came_s, endpoint, body, answer.status_code))
        return answer

    def _admits(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        return given.startswith("Bearer ") and self.api_key in (None, given.removeprefix("Bearer "))

    def _list_models(self, request: Request) -> Response:
        if not self._admits(request):
            return _refusal(WRONG_KEY)
        model = {"object": "model", "created": 0, "owned_by": "system"}
        listed = [(name, end) for name, end in self.models.items() if name not in self.gone]
        return JSONResponse(
            {"object": "list", "data": [{**model, "id": name, "shutdown_date": end} for name, end in listed]}
        )

    def _response(self, body: dict[str, Any], text: str | None) -> dict[str, Any]:
        if text is None:
            wants_json = body.get("text", {}).get("format", {}).get("type") == "json_schema"
            text = json.dumps(dict(self.extraction), ensure_ascii=False) if wants_json else self.summary
        number = self.counts["responses"]
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        message = {"type": "message", "id": f"msg_{number}", "status": "completed", "role": "assistant"}
        return {
            "id": f"resp_{number}",
            "object": "response",
            "created_at": 0,
            "status": "completed",
            "model": body.get("model", ""),
            "output": [
                {"type": "reasoning", "id": f"rs_{number}", "summary": []},
                {**message, "content": [part]},
            ],
            "usage": {"input_tokens": 100, "output_tokens": 50, "total_tokens": 150},
        }

    def _transcription(self, body: dict[str, Any], text: str | None) -> dict[str, Any]:
        if text is None:
            text = self.transcripts.popleft() if self.transcripts else self.default_transcript
        if body.get("response_format") != "verbose_json":
            return {"text": text, "usage": {"type": "duration", "seconds": round(body["seconds"])}}
        segment = {"id": 0, "start": 0.0, "end": body["seconds"], "text": text, "tokens": [], "temperature": 0.0}
        likely = {"avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.01, "seek": 0}
        return {
            "task": "transcribe",
            "language": body.get("language", "english"),
            "duration": body["seconds"],
            "text": text,
            "segments": [{**segment, **likely}] if text else [],
        }


def _refusal(fault: ApiFault) -> Response:
    error = {"message": "as asked for", "type": "error", "param": None, "code": fault.code}
    headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
    return JSONResponse({"error": error}, fault.status, headers)


def _seconds(audio: bytes) -> float:
    """The length of a WAV file; 0 for anything else."""
    try:
        with wave.open(io.BytesIO(audio)) as file:
            return float(file.getnframes() / file.getframerate())
    except (wave.Error, EOFError):
        return 0.0
