"""Feedback: what a user says of the answers of a conversation of theirs, up or down with a comment. The same for every store.

Feedback is kept with the answer that it is on: until that expires or is deleted, and never without it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from memory import keys
from memory.conversations import MessageTooLargeError, unknown_session
from memory.protocol import Item, MemoryStore, Place, StoredRating
from schemas.errors import ConfigurationError, UnavailableError

type Direction = Literal["up", "down"]
"""Whether an answer helped."""

MOST_COMMENT: Final = 2000
"""Characters of a comment."""
_DIRECTIONS: Final = get_args(Direction.__value__)
_TRIES: Final = 5
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Rating:
    """What a user said of one answer last."""

    rating: Direction
    comment: str
    at: float
    """Seconds since the epoch."""


class Feedback:
    """The feedback of one memory. Every method raises the store's errors."""

    def __init__(self, store: MemoryStore, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since the epoch."""
        self._store = store
        self._clock = clock

    def put(self, user: str | None, session: str, turn: int, rating: Direction, comment: str = "") -> Rating:
        """Keep what a user says of the answer of a turn, in place of what they said before; a repeated call changes nothing.

        Raises:
            ConfigurationError: there is no such session or turn, it is another user's, the turn has no answer, or the rating is
                none.
            MessageTooLargeError: the comment has more than `MOST_COMMENT` characters.
        """
        _refuse_unusable(rating, comment)
        place = keys.place_of(user, session)
        said = Rating(rating, comment, self._clock())
        for _ in range(_TRIES):
            answer = self._answer(place, turn)
            if self._store.rate(place, StoredRating(turn, _encoded(said), answer.expires_at)):
                return said
            time.sleep(_POLL_SECONDS)  # another request changes the same item, or the answer is being deleted
        raise UnavailableError(
            "feedback: other requests change the same turn; nothing was kept",
            condition="FEEDBACK_BUSY",
            hint="send it again",
        )

    def of(self, user: str | None, session: str) -> dict[int, Rating]:
        """The feedback on the answers of a session, by turn.

        Raises:
            ConfigurationError: there is no such session, or it is another user's.
        """
        place = keys.place_of(user, session)
        ratings = self._store.ratings(place)
        if not ratings and not self._store.recent(place, 1):
            raise unknown_session(self._store, place)
        now = self._clock()
        return {rating.turn: _decoded(rating.body) for rating in ratings if rating.expires_at > now}

    def _answer(self, place: Place, turn: int) -> Item:
        """The answer of a turn; raises where there is none to rate."""
        now = self._clock()
        items = [item for item in self._store.turn(place, turn) if item.expires_at > now] if turn > 0 else []
        if not items:
            if not any(item.expires_at > now for item in self._store.recent(place, 1)):
                raise unknown_session(self._store, place)
            raise ConfigurationError(
                f"feedback: the session has no turn {turn}, or it has expired",
                condition="TURN_UNKNOWN",
                hint="name the number of a turn of this session",
            )
        if not items[-1].is_answer or json.loads(items[-1].body)["reply"] is None:
            raise ConfigurationError(
                f"feedback: turn {turn} has no answer",
                condition="TURN_UNANSWERED",
                hint="rate a turn that was answered",
            )
        return items[-1]


def _refuse_unusable(rating: object, comment: str) -> None:
    if rating not in _DIRECTIONS:
        raise ConfigurationError(
            "feedback: the rating is neither up nor down",
            condition="FEEDBACK_INVALID",
            hint=f"one of {', '.join(_DIRECTIONS)}",
        )
    if len(comment) > MOST_COMMENT:
        raise MessageTooLargeError(
            f"feedback: the comment has {len(comment)} characters, and at most {MOST_COMMENT} are kept; nothing of it was kept",
            condition="MESSAGE_TOO_LARGE",
            hint="send a part of it",
        )


def _encoded(said: Rating) -> str:
    from transforms.values import exact_json

    body = {"rating": said.rating, "comment": said.comment, "at": said.at}
    return exact_json.printable(json.dumps(body, ensure_ascii=False))


def _decoded(body: str) -> Rating:
    said: Mapping[str, Any] = json.loads(body)
    return Rating(cast("Direction", said["rating"]), said["comment"], said["at"])
