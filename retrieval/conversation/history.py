"""What a memory keeps of a user, as JSON objects. Pure."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memory.conversations import Exchange, Session
    from memory.feedback import Rating


def session_json(session: Session) -> dict[str, Any]:
    """One line of a user's sessions."""
    return {"session": session.name, "turns": session.turns, "last_asked_at": time_json(session.last_asked_at)}


def exchange_json(exchange: Exchange, rating: Rating | None) -> dict[str, Any]:
    """A question of a session, how it ended, the text of its answer, and the user's rating of it."""
    answer = exchange.reply["answer"] if exchange.reply else None
    return {
        "turn": exchange.number,
        "asked_at": time_json(exchange.asked_at),
        "question": exchange.question,
        "state": "answered" if answer is not None else "in progress" if exchange.in_progress else "unanswered",
        "answer": answer,
        "feedback": None if rating is None else {"rating": rating.rating, "comment": rating.comment},
    }


def time_json(seconds: float) -> str:
    """Seconds since the epoch in ISO 8601, UTC, to the second."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
