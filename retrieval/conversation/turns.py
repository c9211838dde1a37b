"""Questions of a conversation: a follow-up becomes a question of its own, is answered, and is remembered with its answer.

History and profile are data: they reach a prompt between tags that their text cannot close, and whatever they make of a
question, it is only searched with, under the caller's own rules. What was answered under other claims is no part of the
history.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from memory.conversations import Conversations, Exchange, Turn
from memory.profiles import Profiles, Value
from retrieval.answering.ask import Answer
from retrieval.answering.events import AnswerEvents, Started
from retrieval.answering.sentences import sentences_of
from retrieval.conversation.followups import Previous, Standalone, standalone
from schemas.caller import Caller
from schemas.errors import ConfigurationError

_SUBJECT_CHARACTERS = 300
TOPIC_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A question that can be understood without its conversation."""

    text: str
    notes: Mapping[str, Any]
    """What the rewriter keeps for later turns."""


class Rewriter(Protocol):
    """Makes a question of its own from a follow-up."""

    def rewrite(self, question: str, history: Sequence[Exchange], profile: Mapping[str, Value]) -> Rewritten:
        """The question as it is to be searched; the first one of a conversation stays as it is."""


class ExtractiveRewriter:
    """Takes words of the turn before; needs no model, and forgets all older turns."""

    def rewrite(self, question: str, history: Sequence[Exchange], profile: Mapping[str, Value]) -> Rewritten:
        """Carry words over where the question refers back (`followups`)."""
        made = carried(question, history)
        return Rewritten(made.text, {"topic": made.topic[:TOPIC_CHARACTERS]})


def carried(question: str, history: Sequence[Exchange]) -> Standalone:
    """The question with words of the last answered turn, where it refers back."""
    if not history:
        return standalone(question, None)
    last = history[-1]
    return standalone(
        question, Previous(str(last.notes.get("topic", last.question)), str(last.notes.get("subject", "")))
    )


class Session(NamedTuple):
    """The conversation that a question belongs to."""

    name: str
    turn_id: str | None = None
    """The caller's own name of the turn: the same one gives the same turn."""


class Answers(Protocol):
    """Answers questions of a caller."""

    def answer(self, question: str) -> Answer:
        """Answer a question of its own."""

    def are_live(self, chunk_ids: Sequence[str]) -> bool:
        """Whether all these chunks are live, and the caller may see them, now."""


class Conversation:
    """Asks in sessions of one memory."""

    def __init__(self, conversations: Conversations, profiles: Profiles, rewriter: Rewriter) -> None:
        self._conversations = conversations
        self._profiles = profiles
        self._rewriter = rewriter

    def ask(
        self, question: str, session: Session, caller: Caller, answers: Answers, events: AnswerEvents | None = None
    ) -> dict[str, Any]:
        """Answer the next question of a session by `answers`, from a question of its own; returns the JSON object.

        A repeated turn id returns the first object again, without asking anything, while all rows that it was written
        from are as they were and the caller may see them.

        Raises:
            ConfigurationError: one of those rows changed, went, or is not the caller's any more.
            PipelineError: what `Conversations.turn` and `answers` raise; the question then stands without an answer.
        """
        events = events or AnswerEvents()
        with self._conversations.turn(
            caller.user, session.name, question, turn_id=session.turn_id, audience=audience_of(caller)
        ) as turn:
            if turn.reply is not None:
                return _repeated(turn, answers, events)
            events.raise_if_cancelled()
            profile = self._profiles.of(caller.user).values if caller.user is not None else {}
            rewritten = self._rewriter.rewrite(question, turn.history, profile)
            events.send(Started(rewritten.text, session.name, turn.number, turn.turn_id))
            answered = answers.answer(rewritten.text)
            reply = answered.as_json() | turn_json(session.name, turn, rewritten.text)
            events.raise_if_cancelled()
            notes = {**rewritten.notes, "subject": _subject(answered), "rows": sorted(answered.rows)}
            self._conversations.answer(turn, reply, notes)
            return reply


def turn_json(session: str, turn: Turn, standalone_question: str) -> dict[str, Any]:
    """What an answer says of its turn."""
    return {
        "session": session, "turn": turn.number, "turn_id": turn.turn_id, "standalone_question": standalone_question,
    }  # fmt: skip


def _repeated(turn: Turn, answers: Answers, events: AnswerEvents) -> dict[str, Any]:
    """The answer that a repeated turn has already, if the rows it was written from are live and allowed now."""
    reply = dict(turn.reply or {})
    rows = turn.notes.get("rows")
    if (reply["citations"] or reply.get("facts")) and (rows is None or not answers.are_live(rows)):
        raise ConfigurationError(
            "session: rows that this turn's answer was written from have changed, are gone, or are not the caller's any more",
            condition="ANSWER_OUTDATED",
            hint="ask again with a turn id of its own: the answer is made anew",
        )
    events.send(Started(reply["standalone_question"], reply["session"], reply["turn"], reply["turn_id"]))
    return reply


def audience_of(caller: Caller) -> str:
    """A digest of a caller's claims: two callers with the same one may see the same."""
    claims = json.dumps({name: caller.claims[name] for name in sorted(caller.claims)}, sort_keys=True)
    return hashlib.sha256(claims.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _subject(answer: Answer) -> str:
    """What an answer was cited from: the heading of its first chunk, or the first sentence."""
    sentences = sentences_of(answer.cites[0].chunk_text) if answer.cites else []
    return (sentences[0].heading or sentences[0].text)[:_SUBJECT_CHARACTERS] if sentences else ""
