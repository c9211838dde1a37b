"""What a request to a model can come to, besides an answer; raised by clients, handled by whoever retries."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Throttled(Exception):  # noqa: N818 - an outcome, handled where it is caught
    """The provider asks to be asked later; it says nothing about the request."""

    condition: str
    retry_after: float | None = None


@dataclass
class Unanswered(Exception):  # noqa: N818 - an outcome, handled where it is caught
    """No answer, or one that blames the provider: usually an outage, seldom a request that breaks it."""

    condition: str


@dataclass
class Refused(Exception):  # noqa: N818 - an outcome, handled where it is caught
    """The provider will not take this request: one of its texts is to blame."""

    condition: str
    too_long: bool = False
    """Whether for its length."""
