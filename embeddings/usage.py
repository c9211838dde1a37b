"""What this process has asked of models, by model and purpose, for metrics. It only grows, and begins anew with the process."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from embeddings.prices import Usage


class Outcome(StrEnum):
    """How a request ended; an answer that nobody reads to its end is one."""

    ANSWERED = "answered"
    FAILED = "failed"


class Asked(NamedTuple):
    """Who is asked, and what for: `document` or `query` of an embedding, `generation`, `reranking`."""

    model: str
    purpose: str


@dataclass
class Receipt:
    """What a request cost, as it becomes known; the estimate until then."""

    used: Usage
    sent: bool = False
    """Whether a part of the answer came: then a failure is paid for."""


@dataclass
class Tally:
    """Requests that ended, and the tokens that were paid for, as the provider counts them or, where it does not, estimated."""

    requests: Counter[tuple[Asked, Outcome]] = field(default_factory=Counter)
    input: Counter[Asked] = field(default_factory=Counter)
    output: Counter[Asked] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def request(self, asked: Asked, estimate: Usage) -> Iterator[Receipt]:
        """Count one request, which runs in the block and says on the receipt what it cost. A failure costs what was sent."""
        receipt, outcome = Receipt(estimate), Outcome.ANSWERED
        try:
            yield receipt
        except Exception:
            outcome = Outcome.FAILED
            raise
        finally:
            is_free = outcome is Outcome.FAILED and not receipt.sent
            self._count(asked, outcome, Usage() if is_free else receipt.used)

    def _count(self, asked: Asked, outcome: Outcome, used: Usage) -> None:
        with self._lock:
            self.requests[asked, outcome] += 1
            self.input[asked] += used.input
            self.output[asked] += used.output


TALLY = Tally()
"""Of this process."""
