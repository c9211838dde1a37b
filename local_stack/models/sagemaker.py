"""InvokeEndpoint and InvokeEndpointWithResponseStream over the local models, one container an endpoint's name.

| endpoint's name | container |
|---|---|
| `tei-…`, `hf-…`, `jumpstart-…` | embedding containers (`containers.py`) |
| `rerank-…` | TEI with a reranking model: `{"query", "texts"}` |
| `tgi-…`, `lmi-…` | text models (`chat_containers.py`) |

Statuses and members of errors are those of botocore's service model of sagemaker-runtime.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import orjson
from aiohttp import web

from local_stack.models.chat import Answer, ChatRoutes
from local_stack.models.chat_containers import ContainerChat, open_chat
from local_stack.models.containers import MAX_TOKENS, parse_container_request
from local_stack.models.rerank import Reranking
from local_stack.models.state import EndpointState
from local_stack.models.wire import ContainerError, WireError, payload_part, stream_error

MAX_BODY_BYTES = 6_291_456
"""Of a request (botocore's service model)."""
PART_BYTES = 48
"""Bytes of a part of a stream: parts end anywhere, within a line and within a character."""

_NAMES = {
    "ThrottlingException": "ThrottlingException",
    "ModelNotReadyException": "ModelNotReadyException",
    "ServiceUnavailableException": "ServiceUnavailable",
    "InternalServerException": "InternalFailure",
    "AccessDeniedException": "AccessDeniedException",
}
"""SageMaker's names of what Bedrock names otherwise."""


class SageMakerRoutes:
    """The two routes of an endpoint."""

    def __init__(self, state: EndpointState, chat: ChatRoutes, reranking: Reranking) -> None:
        self._state = state
        self._chat = chat
        self._reranking = reranking

    async def invoke(self, request: web.Request) -> web.StreamResponse:
        """Answer at once."""
        return await self._answered(request, self._invoked)

    async def invoke_stream(self, request: web.Request) -> web.StreamResponse:
        """Answer in parts, as the text comes."""
        return await self._answered(request, self._streamed)

    async def _answered(
        self, request: web.Request, route: Callable[[web.Request, str, bytes], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Answer by a route; errors have SageMaker's names."""
        try:
            await self._state.strike(request)
            return await route(request, request.match_info["endpoint"], _within_limit(await request.read()))
        except ContainerError as error:
            raise error.to_wire() from None
        except WireError as error:
            if error.name == "ValidationException":
                raise ContainerError(422, error.message, "validation").to_wire() from None
            raise WireError(_NAMES.get(error.name, error.name), error.message, error.retry_after, error.more) from None

    async def _invoked(self, request: web.Request, endpoint: str, body: bytes) -> web.StreamResponse:
        if (chat := open_chat(endpoint, body)) is not None:
            answer = self._opened(chat)
            if (call := answer.calls_tool(self._state.faults)) is not None:
                self._chat.count(answer)
                return _json(chat.calling(call, answer.generated))
            text = "".join([piece async for piece in answer.pieces(self._chat.thread)])
            self._chat.count(answer)
            return _json(chat.whole(text, answer.generated))
        if endpoint.startswith("rerank-"):
            return _json(await self._reranking.of_container(body))
        asked = parse_container_request(endpoint, body)
        if asked is None:
            raise WireError("ValidationError", f"Endpoint {endpoint} of account 000000000000 not found.")
        self._refuse_for_text(asked.texts)
        if not asked.truncate:
            most = max(map(self._state.tokens, asked.texts), default=0)
            if most > MAX_TOKENS:
                raise asked.too_long(most)
        encoded = await self._state.encode(asked.texts)
        vectors = self._state.faults.spoiled(asked.texts, [vector for vector, _ in encoded])
        return _json(asked.answer(vectors))

    async def _streamed(self, request: web.Request, endpoint: str, body: bytes) -> web.StreamResponse:
        chat = open_chat(endpoint, body)
        if chat is None:
            raise ContainerError(400, "this container does not stream", "Validation")
        answer = self._opened(chat)
        return await self._chat.streamed(request, answer, self._frames(chat, answer))

    async def _frames(self, chat: ContainerChat, answer: Answer) -> AsyncGenerator[bytes]:
        faults = self._state.faults
        breaks_after = faults.stream_error_after if faults.strikes("stream_error") else None
        sent = ""
        number = 0
        async with aclosing(self._lines(chat, answer)) as lines:
            async for text, line in lines:
                if number == breaks_after:
                    yield stream_error("ModelStreamError", "The model stream broke off.")
                    return
                for part in _cut(line):
                    yield part
                sent += text
                number += 1
        for part in _cut(chat.end(sent, answer.generated)):
            yield part

    async def _lines(self, chat: ContainerChat, answer: Answer) -> AsyncGenerator[tuple[str, bytes]]:
        """The lines of a stream without its end, each behind the answer's text in it; a tool call counts as none."""
        if (call := answer.calls_tool(self._state.faults)) is not None:
            for line in chat.call_parts(call):
                yield "", line
            return
        async with aclosing(answer.pieces(self._chat.thread)) as pieces:
            async for piece in pieces:
                yield piece, chat.piece(piece)

    def _opened(self, chat: ContainerChat) -> Answer:
        self._refuse_for_text([message.text for message in chat.request.messages])
        return self._chat.opened(chat.request)

    def _refuse_for_text(self, texts: list[str]) -> None:
        """A container's own error for a text with a mark."""
        if (error := self._state.faults.against(texts)) is not None:
            status = 500 if error.name == "InternalServerException" else 422
            raise ContainerError(status, error.message, "Backend")


def _within_limit(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise WireError("ValidationError", f"Request size has exceeded the maximum payload of {MAX_BODY_BYTES}")
    return body


def _cut(raw: bytes) -> list[bytes]:
    return [payload_part(raw[at : at + PART_BYTES]) for at in range(0, len(raw), PART_BYTES)]


def _json(body: Any) -> web.Response:
    return web.Response(body=orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), content_type="application/json")
