"""Any sequence of requests leaves in every memory what a model of a few lines says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory.conversations import Conversations
from memory.feedback import Feedback
from memory.profiles import Profiles
from schemas.errors import PipelineError
from tests.memories import SETTINGS, Memory
from tests.servers import unique

EXAMPLES = 20
TTL = SETTINGS["ttl"]
type Place = tuple[str, str]


@dataclass
class Turn:
    question: str
    turn_id: str | None
    expires: float
    answer: str | None = None
    rating: str | None = None
    ended: bool = False


@dataclass
class Model:
    """The conversations and profiles as they should be."""

    now: float = 0.0
    turns: dict[Place, list[Turn]] = field(default_factory=dict)
    noted: dict[str, tuple[str, float]] = field(default_factory=dict)
    profiles: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)

    def live(self, place: Place) -> list[Turn]:
        return [turn for turn in self.turns.get(place, []) if turn.expires > self.now]

    def ask(
        self, user: str, session: str, question: str, turn_id: str | None
    ) -> tuple[int, list[str], str | None] | str:
        """The number of the turn, its history, and what was answered before; or a condition."""
        place = user, session
        turns = self.turns.setdefault(place, [])
        same = [n for n, turn in enumerate(turns) if turn_id is not None and turn.turn_id == turn_id]
        if same and turns[same[-1]].expires > self.now:
            turn = turns[same[-1]]
            if turn.question != question:
                return "TURN_ID_USED"
            if turn.ended and turn.answer is None:
                return "TURN_UNANSWERED"
            return same[-1] + 1, self._history(place, same[-1]), turn.answer
        if not self.live(place):
            owner, until = self.noted.get(session, (user, 0.0))
            if owner != user and until > self.now:
                return "SESSION_OF_ANOTHER"
            self.noted[session] = user, self.now + TTL
        if turns and turns[-1].answer is None:
            turns[-1].ended = True
        turns.append(Turn(question, turn_id, self.now + TTL))
        return len(turns), self._history(place, len(turns) - 1), None

    def answered(self, place: Place, number: int, answer: str) -> None:
        self.turns[place][number - 1].answer = answer
        self.turns[place][number - 1].ended = True

    def _history(self, place: Place, number: int) -> list[str]:
        before = self.turns[place][:number]
        return [turn.question for turn in before if turn.expires > self.now and turn.answer is not None]

    def rate(self, place: Place, number: int, comment: str) -> str:
        """What a rating is refused with."""
        turns = self.turns.get(place, [])
        turn = turns[number - 1] if number <= len(turns) else None
        if turn is None or turn.expires <= self.now:
            if turns and turns[-1].expires > self.now:
                return "TURN_UNKNOWN"
            owner = self.noted.get(place[1], (place[0], 0.0))[0]
            return "SESSION_UNKNOWN" if owner == place[0] else "SESSION_OF_ANOTHER"
        if turn.answer is None:
            return "TURN_UNANSWERED"
        turn.rating = comment
        return ""

    def delete(self, place: Place) -> None:
        self.turns.pop(place, None)
        if self.noted.get(place[1], ("", 0.0))[0] == place[0]:
            del self.noted[place[1]]


USERS, SESSIONS, IDS = st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from([None, None, "1", "2"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), USERS, SESSIONS, st.sampled_from("pqqq"), IDS, st.booleans()),
        st.tuples(st.just("later"), st.sampled_from([1.0, TTL * 0.6, TTL * 1.1])),
        st.tuples(st.just("rate"), USERS, SESSIONS, st.integers(1, 3)),
        st.tuples(st.just("delete"), USERS, SESSIONS),
        st.tuples(st.just("forget"), USERS),
        st.tuples(st.just("profile"), USERS, st.integers(0, 3), st.integers(0, 600)),
    ),
    min_size=4,
    max_size=24,
)  # fmt: skip


def condition(action: Callable[[], object]) -> str:
    """What an action is refused with; empty if it is not."""
    try:
        action()
    except PipelineError as error:
        return error.condition
    return ""


class Pair:
    """A memory and the model, given the same requests."""

    def __init__(self, memory: Memory, conversations: Conversations, profiles: Profiles) -> None:
        self.memory, self.conversations, self.profiles = memory, conversations, profiles
        self.feedback = Feedback(memory.store(), memory.clock)
        self.model, self.prefix, self.asked = Model(memory.clock()), unique("p"), 0

    def ask(self, user: str, session: str, question: str, turn_id: str | None, fails: bool) -> None:  # noqa: FBT001
        self.asked += 1
        self.model.now = self.memory.clock()
        expected, answer = self.model.ask(user, session, question, turn_id), f"answer {self.asked}"
        turn_seen: list[Any] = []

        def asking() -> None:
            place = self._named(user), self._named(session)
            with suppress(ZeroDivisionError), self.conversations.turn(*place, question, turn_id=turn_id) as turn:
                reply = None if turn.reply is None else turn.reply["answer"]
                turn_seen.extend([turn.number, [exchange.question for exchange in turn.history][-3:], reply])
                if fails:
                    raise ZeroDivisionError
                if turn.reply is None:
                    self.conversations.answer(turn, {"answer": answer}, {})

        refused = condition(asking)
        if isinstance(expected, str):
            assert refused == expected
            return
        number, history, before = expected
        assert (refused, turn_seen) == ("", [number, history[-3:], before])
        if not fails and before is None:
            self.model.answered((user, session), number, answer)

    def later(self, seconds: float) -> None:
        self.memory.clock.ahead += seconds

    def rate(self, user: str, session: str, number: int) -> None:
        self.asked += 1
        comment = f"comment {self.asked}"
        self.model.now = self.memory.clock()
        refused = condition(lambda: self.feedback.put(self._named(user), self._named(session), number, "up", comment))
        assert refused == self.model.rate((user, session), number, comment)

    def delete(self, user: str, session: str) -> None:
        owner = self.model.noted.get(session, (user, 0.0))[0]
        unknown = "SESSION_UNKNOWN" if owner == user else "SESSION_OF_ANOTHER"
        expected = "" if self.model.turns.get((user, session)) else unknown
        self.model.delete((user, session))
        assert condition(lambda: self.conversations.delete(self._named(user), self._named(session))) == expected

    def forget(self, user: str) -> None:
        sessions = [place for place, turns in self.model.turns.items() if place[0] == user and turns]
        removed = self.conversations.forget(self._named(user))["removed"]
        assert (removed["sessions"], removed["profile"]) == (len(sessions), int(user in self.model.profiles))
        assert removed["feedback"] == sum(
            turn.rating is not None for place in sessions for turn in self.model.turns[place]
        )
        for place in sessions:
            self.model.delete(place)
        self.model.profiles.pop(user, None)

    def profile(self, user: str, version: int, hubs: int) -> None:
        stored, values = self.model.profiles.get(user, (0, {}))
        expected = "PROFILE_INVALID" if hubs > 500 else "PROFILE_CHANGED" if version != stored else ""
        assert condition(lambda: self.profiles.put(self._named(user), {"hubs": hubs}, version)) == expected
        if not expected:
            self.model.profiles[user] = stored, values = stored + 1, {"hubs": hubs}
        profile = self.profiles.of(self._named(user))
        assert (profile.version, profile.values) == (stored, values)

    def compare(self) -> None:
        """Hold what can be read against the model."""
        self.model.now = self.memory.clock()
        for user in "ab":
            listed = {listing.name: listing.turns for listing in self.conversations.sessions(self._named(user))}
            places = {session: turns for (owner, session), turns in self.model.turns.items() if owner == user}
            live = {self._named(s): len(turns) for s, turns in places.items() if self.model.live((user, s))}
            assert listed == live
            for session in [session for session in places if self._named(session) in live]:
                kept = self.conversations.exchanges(self._named(user), self._named(session), 1000)
                exchanges = [
                    (exchange.question, None if exchange.reply is None else exchange.reply["answer"])
                    for exchange in kept
                ]
                live_turns = self.model.live((user, session))
                assert exchanges == [(turn.question, turn.answer) for turn in live_turns]
                rated = self.feedback.of(self._named(user), self._named(session)).values()
                assert [rating.comment for rating in rated] == [
                    turn.rating for turn in live_turns if turn.rating is not None
                ]

    def _named(self, name: str) -> str:
        return f"{self.prefix} {name}"


@given(steps=STEPS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_sequence_of_requests_leaves_what_the_model_says(memory: Memory, steps: list[tuple[Any, ...]]) -> None:
    store, config = memory.store(), memory.config()
    memory.clock.ahead = 0.0
    pair = Pair(memory, Conversations(store, config, memory.clock), Profiles(store, config))
    for name, *arguments in steps:
        getattr(pair, name)(*arguments)
    pair.compare()
