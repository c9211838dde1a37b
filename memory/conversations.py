"""Conversations over any store: whose turn it is, what was said before, what a repeated request gets. The same for every store.

A session has one turn at a time. A claim that finds another turn in progress waits, at most `busy_timeout`. A turn whose
process was killed loses the session after `turn_timeout`: the next claim marks its question unanswered, and an answer that
still comes is refused by the store, as the turn has ended. Clocks only decide when that happens, never which of two answers
stands.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from memory import keys
from memory.config import MemorySettings
from memory.protocol import Deleted, Entry, Item, MemoryStore, Place
from schemas.errors import ConfigurationError, PipelineError, RejectedError, UnavailableError

MOST_BYTES = 350_000
"""Of a stored body: an item of DynamoDB has 400 KB with its names and keys (DynamoDB, "Constraints")."""
MOST_QUESTION_BYTES = 100_000
"""Of a question, since its answer is kept with the question that was made of it."""
RECENT = 20
"""Messages that a turn is understood from at most."""
_POLL_SECONDS = 0.1
_TRIES = 5
_NOT_KEPT = "nothing of it was kept"


class SessionBusyError(UnavailableError):
    """Another turn of the session is in progress."""


class MessageTooLargeError(RejectedError):
    """A message is larger than a memory keeps."""

    exit_status = 2


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and how it ended."""

    number: int
    question: str
    asked_at: float
    """Seconds since the epoch."""
    reply: Mapping[str, Any] | None
    """What was given as the answer; None if the question has none."""
    notes: Mapping[str, Any]
    """What the answerer keeps for later turns."""
    in_progress: bool
    """Whether an answer may still come."""


@dataclass(frozen=True, slots=True)
class Session:
    """One line of a user's list of sessions."""

    name: str
    turns: int
    """The number of its last turn."""
    last_asked_at: float
    """Seconds since the epoch."""


@dataclass(slots=True)
class Turn:
    """A claimed turn."""

    place: Place
    number: int
    turn_id: str
    token: str
    expires_at: int
    history: list[Exchange]
    """The exchanges before it that were answered under the same claims, in order."""
    reply: Mapping[str, Any] | None = None
    """What was answered before to the same turn id; None where an answer is to be made."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """What the answerer kept with that."""


class Conversations:
    """The conversations of one memory. Every method raises the store's errors."""

    def __init__(self, store: MemoryStore, settings: MemorySettings, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since the epoch."""
        self._store = store
        self._settings = settings
        self._clock = clock

    @contextmanager
    def turn(
        self, user: str | None, session: str, question: str, *, turn_id: str | None = None, audience: str = ""
    ) -> Iterator[Turn]:
        """Claim the next turn of a session, which begins with its first one.

        A repeated `turn_id` gives the turn it was first claimed with: with its reply, or to be answered where it never was.
        Where the block raises, the question stands without an answer and the session is free. `audience` names what the caller
        may see: exchanges under another one are no part of the history.

        Raises:
            SessionBusyError: another turn was in progress for `busy_timeout`.
            MessageTooLargeError: the question is larger than `MOST_QUESTION_BYTES`.
            ConfigurationError: the session is another user's; the turn id was used for another question.
        """
        place = keys.place_of(user, session)
        name = uuid.uuid4().hex if turn_id is None else keys.named("turn id", turn_id)
        asked = {"text": question, "id": name, "at": self._clock(), "audience": audience}
        body = _encoded(asked, "question", MOST_QUESTION_BYTES)
        claimed = self._claim(place, session, body, named=turn_id is not None)
        try:
            yield claimed
        except BaseException:
            if claimed.reply is None:
                with suppress(PipelineError):  # what the block raised matters more; the hold ends by itself
                    self._store.hold(place, claimed.number, claimed.token, claimed.token, 0.0)
            raise

    def answer(self, turn: Turn, reply: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        """Keep the answer of a claimed turn; a repeated call with the same answer changes nothing.

        Raises:
            MessageTooLargeError: reply and notes are larger than `MOST_BYTES`; the question stays unanswered.
            UnavailableError: another question took the session over meanwhile, or it was deleted.
        """
        body = _encoded({"reply": reply, "notes": notes}, "answer", MOST_BYTES)
        answer = Item(turn.number, turn.token, body, turn.expires_at, is_answer=True)
        for _ in range(_TRIES):
            if self._store.settle(turn.place, answer):
                return
            stored = self._store.turn(turn.place, turn.number)
            if not stored or stored[-1].token != turn.token:
                break
            if stored[-1].is_answer:
                return  # an earlier try arrived, its acknowledgement did not
            time.sleep(_POLL_SECONDS)  # another request looks at the same items
        raise UnavailableError(
            f"session: the turn ended before its answer came, which took longer than turn_timeout or met a deletion; {_NOT_KEPT}",
            condition="TURN_TAKEN_OVER",
            hint="ask again; if answers take that long, raise memory.turn_timeout",
        )

    def exchanges(
        self, user: str | None, session: str, most: int = RECENT, *, audience: str | None = None
    ) -> list[Exchange]:
        """The last exchanges of a session, in order, from at most `most` messages; with `audience`, only those under it.

        Raises:
            ConfigurationError: there is no such session, or it is another user's.
        """
        place = keys.place_of(user, session)
        items = self._store.recent(place, most)
        exchanges = list(self._exchanges(items))
        if audience is not None:
            same = _turns_of(items, audience)
            exchanges = [exchange for exchange in exchanges if exchange.number in same]
        if not exchanges:
            raise unknown_session(self._store, place)
        return exchanges

    def sessions(self, user: str | None) -> list[Session]:
        """The sessions of a user, the last asked first."""
        now = self._clock()
        entries = [entry for entry in self._store.entries(keys.owner_of(user)) if entry.expires_at > now]
        listed = [(json.loads(entry.body), entry.turn) for entry in entries]
        return sorted(
            (Session(body["name"], turn, body["at"]) for body, turn in listed), key=lambda s: (-s.last_asked_at, s.name)
        )

    def delete(self, user: str | None, session: str) -> int:
        """Delete a session now; returns the number of its messages.

        Raises:
            ConfigurationError: there is no such session, or it is another user's.
        """
        place = keys.place_of(user, session)
        if not self._store.recent(place, 1):
            raise unknown_session(self._store, place)
        return self._deleted(place).messages

    def forget(self, user: str) -> dict[str, dict[str, int]]:
        """Delete all that is kept of a user; returns what was removed and what is left, by kind.

        A turn in progress meanwhile is refused its answer. `left` was read after the deletion.
        """
        owner = keys.owner_of(user)
        removed = {"profile": 0, "sessions": 0, "messages": 0, "feedback": 0}
        for entry in self._store.entries(owner):
            deleted = self._deleted(Place(owner, entry.session))
            removed["messages"] += deleted.messages
            removed["feedback"] += deleted.ratings
            removed["sessions"] += 1
        removed["profile"] = int(self._store.delete_profile(owner))
        places = [Place(owner, entry.session) for entry in self._store.entries(owner)]
        left = {
            "profile": int(self._store.profile(owner) is not None),
            "sessions": len(places),
            "messages": sum(len(self._store.recent(place, RECENT)) for place in places),
            "feedback": sum(len(self._store.ratings(place)) for place in places),
        }
        return {"removed": removed, "left": left}

    def _deleted(self, place: Place) -> Deleted:
        self._store.unregister(place.session, place.owner)
        return self._store.delete(place)

    def _claim(self, place: Place, session: str, body: str, *, named: bool) -> Turn:
        """Claim a turn, waiting for the one before it."""
        token, until = uuid.uuid4().hex, time.monotonic() + self._settings.busy_timeout
        asked = json.loads(body)
        turn_id = keys.turn_id_of(asked["id"]) if named else None
        while True:
            items = self._store.recent(place, RECENT)
            earlier = self._named(place, items, asked, turn_id) if named else []
            claimed = (
                self._again(place, items, earlier, asked, token)
                if earlier
                else self._next(place, items, session, Item(0, token, body, 0), turn_id)
            )
            if claimed is not None:
                return claimed
            if time.monotonic() > until:
                raise SessionBusyError(
                    f"session: another turn is in progress since before; {_NOT_KEPT}",
                    condition="SESSION_BUSY",
                    hint=f"ask again; a turn that died gives the session back {self._settings.turn_timeout:g} s after it began",
                )
            time.sleep(_POLL_SECONDS)

    def _named(self, place: Place, items: Sequence[Item], asked: Mapping[str, Any], turn_id: str | None) -> list[Item]:
        """The items of the turn with the same turn id that have not expired; none if it is a new one."""
        recent = [item.turn for item in items if not item.is_answer and json.loads(item.body)["id"] == asked["id"]]
        number = max(recent, default=None)  # an id may be used again once its turn has expired
        if number is None and turn_id is not None:
            number = self._store.turn_named(place, turn_id)
        if number is None:
            return []
        now = self._clock()
        named = [item for item in items if item.turn == number] or self._store.turn(place, number)
        return named if named and not named[0].is_answer and named[0].expires_at > now else []

    def _again(
        self, place: Place, items: Sequence[Item], turn: Sequence[Item], asked: Mapping[str, Any], token: str
    ) -> Turn | None:
        """The turn that a turn id was first claimed with; None while it is in progress elsewhere."""
        question, first = turn[0], json.loads(turn[0].body)
        if (first["text"], first["audience"]) != (asked["text"], asked["audience"]):
            raise ConfigurationError(
                "session: this turn id was used for another question, or by a caller with other claims",
                condition="TURN_ID_USED",
                hint="give every question a turn id of its own; repeat one only to repeat its question",
            )
        history = self._history([item for item in items if item.turn < question.turn], asked["audience"])
        claimed = Turn(place, question.turn, asked["id"], token, question.expires_at, history)
        if len(turn) > 1:
            kept = json.loads(turn[1].body)
            claimed.reply, claimed.notes = kept["reply"], kept["notes"]
            if claimed.reply is not None:
                return claimed
            raise ConfigurationError(
                "session: this turn was left without an answer, and the conversation went on",
                condition="TURN_UNANSWERED",
                hint="ask again with a turn id of its own",
            )
        now = self._clock()
        if question.token == token:  # an earlier try arrived, its acknowledgement did not
            return claimed
        if question.held_until > now:
            return None
        until = now + self._settings.turn_timeout
        return claimed if self._store.hold(place, question.turn, question.token, token, until) else None

    def _next(
        self, place: Place, items: Sequence[Item], session: str, question: Item, turn_id: str | None
    ) -> Turn | None:
        """Claim the turn behind the last one; None if that is in progress, or another process was faster."""
        now, last = self._clock(), items[-1] if items else None
        asked = json.loads(question.body)
        if last is not None and not last.is_answer:
            if (
                last.token == question.token and last.body == question.body
            ):  # an earlier try arrived, its acknowledgement did not
                return Turn(
                    place,
                    last.turn,
                    asked["id"],
                    last.token,
                    last.expires_at,
                    self._history(items[:-1], asked["audience"]),
                )
            if last.held_until > now:
                return None
            self._leave_unanswered(place, last, question.token)
            return self._next(place, self._store.recent(place, RECENT), session, question, turn_id)
        expires_at = math.ceil(now + self._settings.ttl)
        if not any(item.expires_at > now for item in items):
            self._refuse_owned(place, expires_at)
        number = last.turn + 1 if last is not None else 1
        listed_until = max(expires_at, *(item.expires_at for item in items)) if items else expires_at
        entry = Entry(place.session, number, json.dumps({"name": session, "at": now}, ensure_ascii=False), listed_until)
        claim = Item(number, question.token, question.body, expires_at, held_until=now + self._settings.turn_timeout)
        if not self._store.claim(place, claim, entry, turn_id):
            return None
        return Turn(place, number, asked["id"], question.token, expires_at, self._history(items, asked["audience"]))

    def _leave_unanswered(self, place: Place, question: Item, token: str) -> None:
        """End a turn whose hold is over; its own process, should it live, then has another token than its question."""
        if self._store.hold(place, question.turn, question.token, token, 0.0):
            nothing = json.dumps({"reply": None, "notes": {}})
            self._store.settle(place, Item(question.turn, token, nothing, question.expires_at, is_answer=True))

    def _history(self, items: Sequence[Item], audience: str) -> list[Exchange]:
        """What was answered to callers with the same claims."""
        same = _turns_of(items, audience)
        return [
            exchange for exchange in self._exchanges(items) if exchange.reply is not None and exchange.number in same
        ]

    def _exchanges(self, items: Sequence[Item]) -> Iterator[Exchange]:
        """Exchanges of items that have not expired; an answer whose question is not among them is left out."""
        now = self._clock()
        answers = {item.turn: json.loads(item.body) for item in items if item.is_answer}
        for item in items:
            if item.is_answer or item.expires_at <= now:
                continue
            question, answer = json.loads(item.body), answers.get(item.turn)
            yield Exchange(
                item.turn, question["text"], question["at"], answer["reply"] if answer else None,
                answer["notes"] if answer else {}, in_progress=answer is None and item.held_until > now,
            )  # fmt: skip

    def _refuse_owned(self, place: Place, expires_at: int) -> None:
        """Note the owner of a session that begins; raise if it is another user's."""
        if self._store.register(place.session, place.owner, expires_at, self._clock()) != place.owner:
            raise _of_another()


def unknown_session(store: MemoryStore, place: Place) -> ConfigurationError:
    """The error of a session of which an owner has nothing."""
    if store.registered(place.session) not in {None, place.owner}:
        return _of_another()
    return ConfigurationError(
        "session: there is no session of that name, or all of it has expired",
        condition="SESSION_UNKNOWN",
        hint="`ragstream sessions CONFIG --user U` lists a user's sessions; a first question with --session begins one",
    )


def _turns_of(items: Sequence[Item], audience: str) -> set[int]:
    """The turns whose question was asked under these claims."""
    return {item.turn for item in items if not item.is_answer and json.loads(item.body)["audience"] == audience}


def _of_another() -> ConfigurationError:
    return ConfigurationError(
        "session: it belongs to another user",
        condition="SESSION_OF_ANOTHER",
        hint="continue it as the user who began it (--user), or begin one under another name",
    )


def _encoded(body: Mapping[str, Any], what: str, most: int) -> str:
    """A body as JSON that every store takes; raises MessageTooLargeError."""
    from transforms.values import exact_json

    text = exact_json.printable(json.dumps(body, ensure_ascii=False))
    if (size := len(text.encode())) > most:
        raise MessageTooLargeError(
            f"session: the {what} has {size} bytes, and a memory keeps {most} of one; {_NOT_KEPT}",
            condition="MESSAGE_TOO_LARGE",
            hint="ask with a part of it, or without --session",
        )
    return text
