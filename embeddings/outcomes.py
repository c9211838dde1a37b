"""The failures of a request to a model: raised by clients, handled by the retry layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Throttled(Exception):  # noqa: N818 - an outcome, handled where it is caught
    """The provider asks for a later retry; nothing is wrong with the request."""

    condition: str
    retry_after: float | None = None


@dataclass
class Unanswered(Exception):  # noqa: N818 - an outcome, handled where it is caught
    """No answer, or a server error: usually an outage, seldom a request that the server fails on."""

    condition: str


@dataclass
class Refused(Exception):  # noqa: N818 - an outcome, handled where it is caught
    """The provider rejects this request because of one of its texts."""

    condition: str
    too_long: bool = False
    """Whether a text is too long."""
