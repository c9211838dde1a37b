"""The assistant of one pipeline for many callers at once: search, answers, rows, conversations, profiles, feedback."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from retrieval.access import EVERYTHING, Access, Scope
from retrieval.answering.events import AnswerEvents, OnEvent
from retrieval.conversation.history import exchange_json, session_json
from retrieval.conversation.turns import Session, audience_of
from retrieval.parts import Parts, Pipeline, memory_of
from schemas.caller import ANYONE, Caller
from schemas.errors import ConfigurationError
from service.turns import remembered
from transforms.values.times import moment

if TYPE_CHECKING:
    from memory.feedback import Direction
    from memory.profiles import Profile

CONNECTIONS = 8
"""Connections to each store, unless another number is asked for."""


class NamedPipeline(Pipeline, Protocol):
    """A pipeline with a name."""

    @property
    def name(self) -> str:
        """Its name."""


class AssistantService:
    """Answers the callers of one pipeline. Thread-safe; what it reads is repeatable, and what it writes says so itself.

    Everything is read with the grants of the caller, at the moment of the call. A store that did not answer is asked again by
    the next call. Every method raises `UnavailableError` where a part does not answer, `ConfigurationError` where the request
    or the pipeline is wrong.
    """

    def __init__(self, config: Pipeline, *, connections: int = CONNECTIONS) -> None:
        """Connects on first use, to each store and to the warehouse at most so many times."""
        self._parts = Parts(config, connections)

    @property
    def access(self) -> Access:
        """The pipeline's rules of access."""
        return self._parts.access

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def search(self, text: str, k: int, scope: Scope = EVERYTHING, store: str | None = None) -> dict[str, Any]:
        """The object of `ragstream search --json`: at most k documents of what the scope's caller may see, best first."""
        return self._parts.search(text, k, scope, store=store)

    def ask(
        self,
        question: str,
        scope: Scope = EVERYTHING,
        session: Session | None = None,
        *,
        on_event: OnEvent | None = None,
        cancelled: threading.Event | None = None,
    ) -> dict[str, Any]:
        """The object of `ragstream ask --json`: a cited answer, in a session of the scope's caller where one is named.

        `on_event` is called while the answer is written, in this thread, with each of `retrieval.answering.events`; what it
        raises ends the answer.

        Raises:
            CancelledError: `cancelled` was set before the answer was whole; a turn of a session then stays unanswered.
            UnavailableError: the rows that answer changed again and again.
            ConfigurationError: a repeated turn's rows changed, or are not the caller's any more.
        """
        return self._parts.ask(question, scope, session, events=AnswerEvents(on_event, cancelled))

    def row(self, document_id: str, caller: Caller = ANYONE) -> dict[str, Any] | None:
        """A document of the first store with its texts, when it was committed and searchable, and its version.

        None where it is not live, and where the caller may not see it: the two have the same result.
        """
        allowed = self._parts.allowed(Scope(caller=caller))
        document = self._parts.index().run(lambda searcher: searcher.index.document(document_id, allowed))
        if document is None:
            return None
        return {
            "document_id": document.document_id,
            "table": document.table,
            "key": document.key,
            "metadata": document.metadata,
            "chunks": list(document.chunk_texts),
            "committed_at": None if document.commit_time_us is None else _time_json(document.commit_time_us),
            "searchable_at": _time_json(document.written_at_us),
            "version": document.version,
        }

    def versions(self, document_ids: Sequence[str], caller: Caller = ANYONE) -> dict[str, str]:
        """The versions, in the first store, of those documents that are live and that the caller may see now."""
        allowed = self._parts.allowed(Scope(caller=caller))
        return self._parts.index().run(lambda searcher: searcher.index.versions(document_ids, allowed))

    def freshness(self) -> dict[str, Any]:
        """The freshness of the first store: every commit up to `searchable_as_of` is searchable."""
        return self._parts.freshness()

    def sessions(self, caller: Caller = ANYONE) -> list[dict[str, Any]]:
        """The caller's sessions, the last asked first."""
        kept = self._parts.memory().conversations
        return [session_json(session) for session in kept.sessions(_owner(caller))]

    def exchanges(self, caller: Caller, session: str) -> list[dict[str, Any]]:
        """The last exchanges of a session that were asked under the caller's claims, each with the whole answer as `reply`.

        Raises:
            ConfigurationError: there is no such session, it is another's, or nothing of it was asked under these claims.
        """
        kept = self._parts.memory()
        exchanges = kept.conversations.exchanges(caller.user, session, audience=audience_of(caller))
        ratings = kept.feedback.of(caller.user, session)
        return [
            exchange_json(exchange, ratings.get(exchange.number)) | {"reply": exchange.reply} for exchange in exchanges
        ]

    def remember(self, caller: Caller, session: Session, question: str, answer: str, answerer: str) -> dict[str, Any]:
        """Keep a question and its answer, which `answerer` gave elsewhere, as a turn of the caller's session (`service.turns`).

        A repeated turn id keeps nothing, and gives what was kept first.
        """
        return remembered(self._parts.memory().conversations, caller, session, question, answer, answerer)

    def delete_session(self, caller: Caller, session: str) -> dict[str, Any]:
        """Delete a session of the caller now.

        Raises:
            ConfigurationError: there is no such session, or it is another user's.
        """
        count = self._parts.memory().conversations.delete(_owner(caller), session)
        return {"session": session, "deleted_messages": count}

    def profile(self, caller: Caller) -> dict[str, Any]:
        """The caller's profile: its version, its values, and the fields that the pipeline declares."""
        return self._profile(self._parts.memory().profiles.of(_user(caller)))

    def put_profile(self, caller: Caller, values: Mapping[str, object], version: int) -> dict[str, Any]:
        """Replace the caller's profile; `version` is the one that the values were made from, 0 for none.

        Raises:
            ConfigurationError: a field is not declared, or its value is not of its type or bounds; nothing was written.
            UnavailableError: the profile has another version now.
        """
        return self._profile(self._parts.memory().profiles.put(_user(caller), values, version))

    def feedback(self, caller: Caller, session: str, turn: int, rating: Direction, comment: str = "") -> dict[str, Any]:
        """Keep what the caller says of the answer of a turn, in place of what they said before.

        Raises:
            ConfigurationError: there is no such session or turn, it is another's, the turn has no answer, or the rating is none.
            MessageTooLargeError: the comment is too long.
        """
        said = self._parts.memory().feedback.put(_owner(caller), session, turn, rating, comment)
        return {"session": session, "turn": turn, "rating": said.rating, "comment": said.comment}

    def close(self) -> None:
        """Close every connection; no call may be in progress."""
        self._parts.close()

    def _profile(self, profile: Profile) -> dict[str, Any]:
        declared = memory_of(self._parts.config).profile
        fields = {name: field.model_dump(mode="json", exclude_none=True) for name, field in declared.items()}
        return {"version": profile.version, "values": dict(profile.values), "fields": fields}


def _user(caller: Caller) -> str:
    if caller.user is None:
        raise ConfigurationError(
            "the caller has no user, so nothing is kept as theirs",
            condition="NO_USER",
            hint="sign in with a token or a key that names a user: the claim `sub`",
        )
    return caller.user


def _owner(caller: Caller) -> str | None:
    """Whose sessions are listed, deleted and rated; raises for a caller with claims and no user, as others share theirs."""
    return _user(caller) if caller.claims else None


def _time_json(microseconds: int) -> str:
    return moment(microseconds).isoformat(timespec="milliseconds")
