"""The state of one model endpoint: injected faults, and counters for tests and benchmarks."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from embeddings.protocol import Vector
from local_stack.models.wire import WireError

type Amount = int | float
"""A whole number means the next n requests; a fraction (also 1.0) means that share of all requests."""


class Faults(BaseModel):
    """The injected faults, until they are replaced; an empty object clears them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    throttle: Amount = 0
    """Requests answered 429 ThrottlingException."""
    retry_after: float | None = None
    """Seconds named in Retry-After on a throttled answer; no header when absent."""
    unavailable: Amount = 0
    """Requests answered 503 ServiceUnavailableException."""
    not_ready: Amount = 0
    """Requests answered 429 ModelNotReadyException."""
    error: Amount = 0
    """Requests answered 500 InternalServerException."""
    deny: Amount = 0
    """Requests answered 403 AccessDeniedException."""
    drop: Amount = 0
    """Requests whose connection is closed without an answer."""
    slow_ms: float = 0
    """Milliseconds each answer is delayed."""
    piece_ms: float = 0
    """Milliseconds before each piece of a conversation stream."""
    stream_error: Amount = 0
    """Conversation streams that break off with modelStreamErrorException."""
    stream_error_after: int = 1
    """Text pieces sent before a stream breaks off; 0 breaks it before any text."""
    guard_question: str | None = None
    """A conversation that contains this mark is blocked, if its request names a guardrail."""
    guard_answer: str | None = None
    """An answer that contains this mark is blocked, if its request names a guardrail; a stream has sent it by then."""
    reasoning: bool = False
    """Answers begin with a block of reasoning and one of citations, which are no part of the text."""
    answer: str | None = None
    """What the text model answers to everything, as one that an injected instruction took over would."""
    tool_inputs: list[str] = []
    """Inputs of tool calls, as the model writes them: each request that offers tools uses up one, and gets no other answer."""
    tool_name: str | None = None
    """The tool that such a call names; the first one offered when absent."""
    refuse_tools: bool = False
    """A conversation that offers tools is refused, as by a model that takes none."""
    rerank_page: int = 0
    """Results of a page of Rerank; all of them when 0."""
    refuse_text: str | None = None
    """A request with a text that contains this mark is answered 400 ValidationException."""
    fail_text: str | None = None
    """A request with a text that contains this mark is answered 500 InternalServerException, however often it comes."""
    spoil_text: str | None = None
    """A text that contains this mark gets no vector that can be used."""
    spoil: Literal["null", "nulls", "text", "huge", "zero", "short", "absent"] = "null"
    """Its vector: null, a list of nulls, of words, of numbers beyond float32, of zeros, of three numbers, or none at all, as if
    the text had not been in the request."""

    def strikes(self, name: str) -> bool:
        """Decide whether this request suffers the fault, and use up one of a counted fault."""
        amount = getattr(self, name)
        if isinstance(amount, float):
            return random.random() < amount  # noqa: S311 - a fault rate, not a secret
        if amount > 0:
            setattr(self, name, amount - 1)
            return True
        return False

    def against(self, texts: Sequence[str]) -> WireError | None:
        """Return the error that one of the texts provokes."""
        if _marked(texts, self.refuse_text):
            return WireError("ValidationException", "400 Bad Request: the model does not take this input.")
        if _marked(texts, self.fail_text):
            return WireError("InternalServerException", "The system encountered an unexpected error during processing.")
        return None

    def spoiled(self, texts: Sequence[str], vectors: Sequence[Vector]) -> list[Any]:
        """The vectors of texts as the response contains them."""
        values: list[Any] = []
        for text, vector in zip(texts, vectors, strict=True):
            if not _marked([text], self.spoil_text):
                values.append(vector)
            elif self.spoil != "absent":
                values.append(_SPOILED[self.spoil](len(vector)))
        return values


_SPOILED: Mapping[str, Callable[[int], Any]] = {
    "null": lambda _: None, "nulls": lambda size: [None] * size, "text": lambda size: ["x"] * size,
    "huge": lambda size: [1e300] * size, "zero": lambda size: [0.0] * size, "short": lambda _: [0.6, 0.0, 0.8],
}  # fmt: skip


def _marked(texts: Sequence[str], mark: str | None) -> bool:
    return mark is not None and any(mark in text for text in texts)


@dataclass(slots=True)
class Counters:
    """Requests and responses since the start or the last reset."""

    requests: int = 0
    """Embedding requests that were answered with vectors."""
    texts: int = 0
    """Texts in those requests."""
    chars: int = 0
    tokens: int = 0
    throttled: int = 0
    """Requests refused on demand with 429 or 503."""
    failed: int = 0
    """Requests answered with any other error, or dropped."""
    busy_seconds: float = 0.0
    """Time inside the embedding model."""
    generations: int = 0
    reranked: int = 0
    """Texts that were scored."""
    generated_tokens: int = 0
    _distinct: set[bytes] = field(default_factory=set)

    def embedded(self, texts: Iterable[str], tokens: int, seconds: float) -> None:
        """Count one answered embedding request."""
        self.requests += 1
        self.tokens += tokens
        self.busy_seconds += seconds
        for text in texts:
            self.texts += 1
            self.chars += len(text)
            self._distinct.add(hashlib.blake2b(text.encode(), digest_size=8).digest())

    def to_json(self) -> dict[str, int | float]:
        """Return the counts, with `distinct_texts`, as one flat object."""
        counts = asdict(self)
        counts["distinct_texts"] = len(counts.pop("_distinct"))
        return counts
