"""Questions of a conversation: a follow-up becomes a question of its own, is answered, and is remembered with its answer.

History and profile are data: they reach a prompt between tags that their text cannot close, and whatever they make of a
question, it is only searched with, under the caller's own rules. What was answered under other claims is no part of the
history.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from memory.conversations import Conversations, Exchange
from memory.profiles import Profiles, Value
from retrieval.ask import Answer
from retrieval.followups import Previous, Standalone, standalone
from retrieval.sentences import sentences_of
from schemas.caller import Caller

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


class Conversation:
    """Asks in sessions of one memory."""

    def __init__(self, conversations: Conversations, profiles: Profiles, rewriter: Rewriter) -> None:
        self._conversations = conversations
        self._profiles = profiles
        self._rewriter = rewriter

    def ask(
        self,
        question: str,
        session: str,
        caller: Caller,
        answer: Callable[[str], Answer],
        *,
        turn_id: str | None = None,
    ) -> dict[str, Any]:
        """Answer the next question of a session by `answer`, which is given a question of its own; returns the JSON object.

        A repeated `turn_id` gives the object that was given first, without asking anything.

        Raises:
            PipelineError: what `Conversations.turn` and `answer` raise; the question then stands without an answer.
        """
        with self._conversations.turn(
            caller.user, session, question, turn_id=turn_id, audience=audience_of(caller)
        ) as turn:
            if turn.reply is not None:
                return dict(turn.reply)
            profile = self._profiles.of(caller.user).values if caller.user is not None else {}
            rewritten = self._rewriter.rewrite(question, turn.history, profile)
            answered = answer(rewritten.text)
            reply = answered.as_json() | {
                "session": session, "turn": turn.number, "turn_id": turn.turn_id, "standalone_question": rewritten.text,
            }  # fmt: skip
            self._conversations.answer(turn, reply, {**rewritten.notes, "subject": _subject(answered)})
            return reply


def audience_of(caller: Caller) -> str:
    """A digest of a caller's claims: two callers with the same one may see the same."""
    claims = json.dumps({name: caller.claims[name] for name in sorted(caller.claims)}, sort_keys=True)
    return hashlib.sha256(claims.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _subject(answer: Answer) -> str:
    """What an answer was cited from: the heading of its first chunk, or the first sentence."""
    sentences = sentences_of(answer.cites[0].chunk_text) if answer.cites else []
    return (sentences[0].heading or sentences[0].text)[:_SUBJECT_CHARACTERS] if sentences else ""
