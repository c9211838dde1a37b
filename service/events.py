"""The events of an answer: each has a `name` and an `as_json()`, as the HTTP service sends them."""

from __future__ import annotations

from retrieval.answering.events import (
    Answered,
    CancelledError,
    Cited,
    Event,
    FactCited,
    OnEvent,
    Restarted,
    Said,
    Started,
)

__all__ = ["Answered", "CancelledError", "Cited", "Event", "FactCited", "OnEvent", "Restarted", "Said", "Started"]
