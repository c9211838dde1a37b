"""A session of the pipeline's memory as a LangChain history of chat messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import override

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from retrieval.conversation.turns import Session
from schemas.caller import ANYONE, Caller
from schemas.errors import ConfigurationError
from service.assistant import AssistantService

_ANSWERER = "langchain"


@dataclass(frozen=True, slots=True)
class _Question:
    text: str
    message_id: str | None


class RagstreamChatMessageHistory(BaseChatMessageHistory):
    """The last turns of a caller's session: each a question and its answer. Not thread-safe; one object a request.

    The memory keeps turns, by its own rules, and so does this:

    - A question is kept together with its answer, so that no other turn comes between them. Alone, it waits in this object
      for the answer, which may come in a later call; if none comes, nothing was kept.
    - Human messages in a row are one question. What only calls tools, what tools said, and system messages are left out.
    - Another turn of the session, of `ragstream ask` or another program, is waited for; two at once follow one another.
    - A human message with an `id` is kept once: repeated, it changes nothing.
    - The session is of the caller's user alone. What was said under other claims is not among its messages.
    - `clear` deletes the session now, with the feedback on it.
    """

    def __init__(self, service: AssistantService, session: str, caller: Caller = ANYONE) -> None:
        """The session begins with its first answered question. Whoever opened the service closes it."""
        super().__init__()
        self.session = session
        self._service = service
        self._caller = caller
        self._waiting: _Question | None = None

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override] # read anew each time, as the base allows
        """The answered turns among the session's last ones, in order, and a question that waits for its answer.

        An answer's `response_metadata` has its turn and its citations.

        Raises:
            ConfigurationError: the pipeline keeps no memory, or the session is another user's.
        """
        try:
            exchanges = self._service.exchanges(self._caller, self.session)
        except ConfigurationError as error:
            if error.condition != "SESSION_UNKNOWN":
                raise
            exchanges = []
        said: list[BaseMessage] = []
        for exchange in exchanges:
            if exchange["reply"] is not None:
                about = {"turn": exchange["turn"], "citations": exchange["reply"]["citations"]}
                said += [HumanMessage(exchange["question"]), AIMessage(exchange["answer"], response_metadata=about)]
        return [*said, HumanMessage(self._waiting.text)] if self._waiting else said

    @override
    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Keep whole turns; see the class. Messages of another kind are refused before anything is kept.

        Raises:
            ConfigurationError: an answer without a question, another kind of message, or the session is another user's.
            SessionBusyError: another turn of the session was in progress for `busy_timeout`.
            MessageTooLargeError: a message is larger than a memory keeps.
        """
        turns, waiting = _turns(self._waiting, messages)
        for question, answer in turns:
            turn = Session(self.session, question.message_id)
            self._service.remember(self._caller, turn, question.text, answer, _ANSWERER)
        self._waiting = waiting

    @override
    def clear(self) -> None:
        """Delete the session now, whoever is in the middle of a turn; nothing is wrong where there is none."""
        self._waiting = None
        try:
            self._service.delete_session(self._caller, self.session)
        except ConfigurationError as error:
            if error.condition != "SESSION_UNKNOWN":
                raise


def _turns(
    waiting: _Question | None, messages: Sequence[BaseMessage]
) -> tuple[list[tuple[_Question, str]], _Question | None]:
    """The turns that messages complete, and the question that is left waiting."""
    turns = []
    for message in messages:
        match message:
            case HumanMessage():
                text = str(message.text)
                waiting = _Question(text, message.id) if waiting is None else _joined(waiting, text)
            case AIMessage(tool_calls=[_, *_]) | ToolMessage() | SystemMessage():
                pass
            case AIMessage() if waiting is not None:
                turns.append((waiting, str(message.text)))
                waiting = None
            case AIMessage():
                raise ConfigurationError(
                    "an answer without a question", condition="ANSWER_ALONE",
                    hint="add a human message before it: this memory keeps questions with their answers",
                )  # fmt: skip
            case _:
                raise ConfigurationError(
                    f"no turn has messages of the kind {message.type!r}", condition="MESSAGE_KIND",
                    hint="add human and AI messages",
                )  # fmt: skip
    return turns, waiting


def _joined(waiting: _Question, text: str) -> _Question:
    return _Question(f"{waiting.text}\n{text}", waiting.message_id)
