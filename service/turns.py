"""Turns of conversations whose answers other programs gave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retrieval.conversation.turns import TOPIC_CHARACTERS, Session, audience_of, turn_json
from retrieval.ranking.search import UNKNOWN_FRESHNESS
from schemas.caller import Caller

if TYPE_CHECKING:
    from memory.conversations import Conversations


def remembered(
    conversations: Conversations, caller: Caller, session: Session, question: str, answer: str, answerer: str
) -> dict[str, Any]:
    """Keep a question with its answer as the next turn of a session; returns the object that `ragstream ask` would give.

    A repeated turn id keeps nothing, and gives the object that was kept first. Other turns wait: none comes between the two.

    Raises:
        ConfigurationError: the session is another user's; the turn id was used for another question.
        SessionBusyError: another turn was in progress for `busy_timeout`.
        MessageTooLargeError: the question or the answer is larger than a memory keeps.
    """
    audience = audience_of(caller)
    with conversations.turn(caller.user, session.name, question, turn_id=session.turn_id, audience=audience) as turn:
        if turn.reply is not None:
            return dict(turn.reply)
        reply = {
            "answer": answer, "abstained": False, "answerer": answerer, "sentences": [], "citations": [], "facts": [],
            "freshness": dict(UNKNOWN_FRESHNESS), **turn_json(session.name, turn, question),
        }  # fmt: skip
        conversations.answer(turn, reply, {"topic": question[:TOPIC_CHARACTERS], "subject": "", "rows": []})
        return reply
