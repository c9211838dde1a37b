"""A store of conversations and profiles: a few atomic operations on items whose bodies it does not read.

A turn is a question and, once it ended, an answer: one item each. Both are written once. The insert of a question that fails
where one stands is what claims a turn's number; the insert of an answer that fails where one stands ends the turn.
`memory.conversations` builds everything else on that, the same for every store.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class Place:
    """Where a conversation is: digests of its owner and its session (`memory.keys`), 32 hexadecimal digits each."""

    owner: str
    session: str


@dataclass(frozen=True, slots=True)
class Item:
    """One message as a store keeps it."""

    turn: int
    """From 1."""
    token: str
    """Of the process that wrote it; the answer to a question must carry the token that the question has."""
    body: str
    """At most `conversations.MOST_BYTES` bytes of UTF-8 without U+0000."""
    expires_at: int
    """Seconds since the epoch, when it may be deleted; a store may delete it later, and gives it back until then."""
    is_answer: bool = False
    held_until: float = 0.0
    """Of a question: seconds since the epoch until when its turn keeps the session."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a user's list of sessions."""

    session: str
    """The digest."""
    turn: int
    """The number of the last claimed turn."""
    body: str
    expires_at: int
    """Not before the last message's."""


@dataclass(frozen=True, slots=True)
class StoredRating:
    """What a user said of one answer, as a store keeps it."""

    turn: int
    body: str
    expires_at: int
    """The answer's."""


class Deleted(NamedTuple):
    """What a deletion of a conversation removed."""

    messages: int
    ratings: int


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """A user's profile as a store keeps it."""

    version: int
    """From 1, one more with every write."""
    body: str


class MemoryStore(Protocol):
    """One memory. Reads see every write that returned, a write is whole or not there, and no error holds a message's text.

    Raises:
        UnavailableError: the store does not answer in time, throttles, or is full.
        ConfigurationError: it does not exist, or refuses a right.
    """

    def check(self) -> None:
        """Create what is missing, and validate it; raise ConfigurationError with the rights and settings that are needed."""

    def recent(self, place: Place, most: int) -> list[Item]:
        """The last items of a conversation, at most `most`, in order, with those that expired and were not deleted yet."""

    def turn(self, place: Place, number: int) -> list[Item]:
        """The items of one turn: none, the question, or both in order."""

    def turn_named(self, place: Place, turn_id: str) -> int | None:
        """The number of the last turn that was claimed under this digest of a turn id."""

    def claim(self, place: Place, question: Item, entry: Entry, turn_id: str | None) -> bool:
        """Insert a question, its session's entry and its turn id (a digest); False, without a change, if the turn is taken."""

    def hold(self, place: Place, number: int, seen: str, token: str, until: float) -> bool:
        """Give a question another token and another end of its hold; False if it has not the token `seen`, or is answered."""

    def settle(self, place: Place, answer: Item) -> bool:
        """Insert an answer; False if the turn has one, or its question has another token or is gone."""

    def entries(self, owner: str) -> list[Entry]:
        """The sessions of an owner, in no order, with those that expired and were not deleted yet."""

    def rate(self, place: Place, rating: StoredRating) -> bool:
        """Keep a rating of an answer in place of an earlier one; False if the turn has no answer, or is changed just now."""

    def ratings(self, place: Place) -> list[StoredRating]:
        """The ratings of a conversation's answers in order, with those that expired and were not deleted yet."""

    def delete(self, place: Place) -> Deleted:
        """Delete a conversation, its ratings, its entry and its turn ids."""

    def register(self, session: str, owner: str, expires_at: int, now: float) -> str:
        """Note the owner of a session unless another one is noted until after `now`; returns the noted one."""

    def registered(self, session: str) -> str | None:
        """The noted owner of a session, expired or not."""

    def unregister(self, session: str, owner: str) -> None:
        """Remove the note on a session, if it is on this owner."""

    def profile(self, owner: str) -> StoredProfile | None:
        """The profile of an owner."""

    def put_profile(self, owner: str, body: str, seen: int) -> bool:
        """Write a profile as version `seen` + 1; False if the stored version is not `seen` (0: there is none)."""

    def delete_profile(self, owner: str) -> bool:
        """Delete a profile; False if there is none."""

    def close(self) -> None:
        """Close connections; the next call opens others."""


def in_order(items: Sequence[Item]) -> list[Item]:
    """Items by turn, each question before its answer."""
    return sorted(items, key=lambda item: (item.turn, item.is_answer))
