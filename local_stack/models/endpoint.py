"""A model endpoint on one port: the Bedrock runtime's wire format over local models, for plain boto3 with `endpoint_url`.

    python -m local_stack.models.endpoint --port 8080 [--host 127.0.0.1] [--mode real|instant]

| route | answers |
|---|---|
| POST /model/{id}/invoke | the embedding models of `embeddings.py` |
| POST /model/{id}/converse, /model/{id}/converse-stream | any other id: the local text model |
| POST /endpoints/{name}/invocations, …/invocations-response-stream | SageMaker's runtime: `sagemaker.py` |
| POST /rerank | bedrock-agent-runtime's Rerank, by late interaction over the local encoder (`rerank.py`) |
| POST /v1/embeddings | OpenAI's form of the same vectors, in 384 dimensions |
| GET /health, GET /counters, POST /reset | readiness; counters since the start or the last reset |
| GET /faults, POST /faults | read, replace the faults (`local_stack.models.faults.Faults`) |

Signatures are not checked. SIGTERM and SIGINT finish the requests in flight and end the process.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import orjson
from aiohttp import web
from pydantic import ValidationError

from embeddings.onnx.embedder import Encoded
from embeddings.protocol import Vector
from local_stack.models.chat import ChatRoutes
from local_stack.models.embeddings import parse_embedding_request, resized, too_many_tokens
from local_stack.models.faults import Counters, Faults
from local_stack.models.instant import InstantEncoder, InstantGenerator
from local_stack.models.protocol import TextEncoder, TextGenerator
from local_stack.models.rerank import Reranking
from local_stack.models.sagemaker import SageMakerRoutes
from local_stack.models.wire import WireError

type Mode = Literal["real", "instant"]
type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_BODY_BYTES = 25_000_000
"""InvokeModel's own limit (botocore service model)."""

_NEVER_LONG = 512
"""Bytes that no tokenizer makes more tokens of than any model here takes."""

logger = logging.getLogger(__name__)


class ModelEndpoint:
    """The routes over one encoder and one generator, each on a thread of its own."""

    def __init__(self, encoder: TextEncoder, generator: TextGenerator, *, in_thread: bool) -> None:
        """Serve these models; `in_thread` keeps a slow encoder off the event loop."""
        self._encoder = encoder
        self._encoding = ThreadPoolExecutor(1, "encode") if in_thread else None
        self.faults = Faults()
        self.counters = Counters()
        self._chat = ChatRoutes(self, generator)
        self._reranking = Reranking(self, self._encoding)
        self._sagemaker = SageMakerRoutes(self, self._chat, self._reranking)

    def application(self) -> web.Application:
        """Return the aiohttp application with every route."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._answer_errors])
        app.add_routes(
            [
                web.post("/model/{model_id}/invoke", self._invoke),
                web.post("/model/{model_id}/converse", self._chat.converse),
                web.post("/model/{model_id}/converse-stream", self._chat.converse_stream),
                web.post("/endpoints/{endpoint}/invocations", self._sagemaker.invoke),
                web.post("/endpoints/{endpoint}/invocations-response-stream", self._sagemaker.invoke_stream),
                web.post("/rerank", self._reranking.rerank),
                web.post("/v1/embeddings", self._openai_embeddings),
                web.get("/health", self._health),
                web.get("/counters", self._read_counters),
                web.post("/reset", self._reset_counters),
                web.get("/faults", self._read_faults),
                web.post("/faults", self._set_faults),
            ]
        )
        return app

    async def strike(self, request: web.Request) -> None:
        """Inject the faults that are set: wait, refuse, or close the connection."""
        faults = self.faults
        if faults.slow_ms:
            await asyncio.sleep(faults.slow_ms / 1000)
        if faults.strikes("drop") and request.transport is not None:
            self.counters.failed += 1
            request.transport.abort()
            raise asyncio.CancelledError
        if faults.strikes("throttle"):
            raise WireError(
                "ThrottlingException", "Too many requests, please wait before trying again.", faults.retry_after
            )
        if faults.strikes("not_ready"):
            raise WireError("ModelNotReadyException", "Model is not ready for inference.")
        if faults.strikes("unavailable"):
            raise WireError("ServiceUnavailableException", "Bedrock is unable to process your request.")
        if faults.strikes("error"):
            raise WireError("InternalServerException", "The system encountered an unexpected error during processing.")
        if faults.strikes("deny"):
            raise WireError("AccessDeniedException", "You don't have access to the model with the specified model ID.")

    async def _invoke(self, request: web.Request) -> web.Response:
        await self.strike(request)
        asked = parse_embedding_request(request.match_info["model_id"], await request.read())
        if asked is None:
            raise WireError("ValidationException", "The provided model identifier is invalid.")
        if (most := asked.max_tokens) is not None:
            long = (text for text in asked.texts if len(text.encode()) > most)  # no tokenizer makes more of it
            if (tokens := max(map(self._encoder.tokens, long), default=0)) > most:
                raise too_many_tokens(most, tokens)
        encoded = await self.encode(asked.texts)
        spent = sum(tokens for _, tokens in encoded)
        vectors = [resized(native, asked.dimensions) for native, _ in encoded]
        headers = {"X-Amzn-Bedrock-Input-Token-Count": str(spent)}
        return _json(asked.answer(self.faults.spoiled(asked.texts, vectors), spent), headers)

    async def _openai_embeddings(self, request: web.Request) -> web.Response:
        await self.strike(request)
        body = orjson.loads(await request.read())
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise WireError("ValidationException", "input must be a string or a list of strings")
        encoded = await self.encode(texts)
        as_base64 = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if as_base64 else vector}
            for index, (vector, _) in enumerate(encoded)
        ]
        tokens = sum(tokens for _, tokens in encoded)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return _json({"object": "list", "model": body.get("model", ""), "data": data, "usage": usage})

    def tokens(self, text: str) -> int:
        """Count a text's tokens."""
        return self._encoder.tokens(text) if len(text.encode()) > _NEVER_LONG else 0

    def token_vectors(self, text: str) -> Vector:
        """The vectors of a text's tokens: tokens × dimensions."""
        return self._encoder.token_vectors(text)

    async def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """The vectors of texts, counted; raises what one of them provokes."""
        if (error := self.faults.against(texts)) is not None:
            raise error
        loop = asyncio.get_running_loop()
        started = loop.time()
        if self._encoding is None:
            encoded = self._encoder.encode(texts)
        else:
            encoded = await loop.run_in_executor(self._encoding, self._encoder.encode, texts)
        self.counters.embedded(texts, sum(tokens for _, tokens in encoded), loop.time() - started)
        return encoded

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except WireError as error:
            if error.status in {429, 503}:
                self.counters.throttled += 1
            else:
                self.counters.failed += 1
            return web.json_response(error.body(), status=error.status, headers=error.headers())

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _read_counters(self, request: web.Request) -> web.Response:
        return web.json_response(self.counters.to_json())

    async def _reset_counters(self, request: web.Request) -> web.Response:
        self.counters = Counters()
        return web.json_response(self.counters.to_json())

    async def _read_faults(self, request: web.Request) -> web.Response:
        return web.json_response(self.faults.model_dump())

    async def _set_faults(self, request: web.Request) -> web.Response:
        try:
            self.faults = Faults.model_validate_json(await request.read())
        except ValidationError as error:
            return web.json_response({"message": str(error)}, status=400)
        return web.json_response(self.faults.model_dump())


def _json(body: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    """Answer JSON; orjson writes float32 arrays in their shortest exact form, a third of the bytes of float64's."""
    raw = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return web.Response(body=raw, content_type="application/json", headers=headers)


def _base64(vector: Vector) -> str:
    return base64.b64encode(vector.tobytes()).decode()


def open_endpoint(mode: Mode, threads: int) -> ModelEndpoint:
    """Load the models of a mode; real weights are built into a graph on first use and cached."""
    if mode == "instant":
        return ModelEndpoint(InstantEncoder(), InstantGenerator(), in_thread=False)
    from local_stack.models.minilm import open_minilm
    from local_stack.models.smollm import SmolLM

    return ModelEndpoint(open_minilm(threads=threads), SmolLM(), in_thread=True)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m local_stack.models.endpoint", description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--mode", choices=["real", "instant"], default="real")
    parser.add_argument("--threads", type=int, default=1, help="threads of the embedding model")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    endpoint = open_endpoint(options.mode, options.threads)
    logger.info("model endpoint ready on %s:%d, mode %s", options.host, options.port, options.mode)
    web.run_app(
        endpoint.application(), host=options.host, port=options.port, print=None, access_log=None, shutdown_timeout=2
    )


if __name__ == "__main__":
    main()
