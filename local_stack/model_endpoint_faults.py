"""Faults on demand, and the counts a test or a benchmark reads: state of one model endpoint."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from pydantic import BaseModel, ConfigDict

from local_stack.model_endpoint_wire import WireError

type Amount = int | float
"""A whole number means the next n requests; a fraction (also 1.0) means that share of all requests."""


class Faults(BaseModel):
    """What the endpoint does wrong until told otherwise; an empty object clears everything."""

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
    stream_error: Amount = 0
    """Conversation streams that break off with modelStreamErrorException."""
    stream_error_after: int = 1
    """Text pieces sent before a stream breaks off; 0 breaks it before any text."""
    refuse_text: str | None = None
    """A request with a text that contains this mark is answered 400 ValidationException."""
    fail_text: str | None = None
    """A request with a text that contains this mark is answered 500 InternalServerException, however often it comes."""

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


def _marked(texts: Sequence[str], mark: str | None) -> bool:
    return mark is not None and any(mark in text for text in texts)


@dataclass(slots=True)
class Counters:
    """What was asked and answered since the start or the last reset."""

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

    def as_json(self) -> dict[str, int | float]:
        """Return the counts, with `distinct_texts`, as one flat object."""
        plain = asdict(self)
        plain["distinct_texts"] = len(plain.pop("_distinct"))
        return plain
