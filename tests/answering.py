"""An answerer and a text model whose answers a test sets."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from generation import AnswerStream, GeneratedAnswer, Message, StopReason, Tool, ToolCall
from retrieval.answering.drafts import NO_FACTS, Draft, FactSource, Progress, Statement, ignore_progress
from retrieval.ranking.fusion import Ranked
from sinks.search import Question


class Quoting:
    """An answerer that quotes its first source, after it has called `meanwhile`."""

    name = "quoting"

    def __init__(self, meanwhile: Callable[[Sequence[Ranked]], object] = lambda _: None) -> None:
        self.meanwhile, self.questions = meanwhile, list[str]()

    def draft(
        self,
        question: Question,
        sources: Sequence[Ranked],
        facts: FactSource = NO_FACTS,
        *,
        progress: Progress = ignore_progress,
    ) -> Draft:
        self.meanwhile(sources)
        self.questions.append(question.text)
        return Draft((Statement(sources[0].hit.chunk_text, (sources[0].hit,)),))


@dataclass
class Scripted:
    """A text model with its answers set; it keeps what it was sent."""

    replies: list[str | tuple[ToolCall, ...] | StopReason | Exception]
    takes_tools: bool = True
    sent: list[tuple[str, list[Message], Sequence[Tool]]] = field(default_factory=list)
    model: str = "scripted"
    blocked: str = ""
    """The text that comes with a stop reason."""

    def converse(
        self, messages: Sequence[Message], *, system: str = "", tools: Sequence[Tool] = (), **_: Any
    ) -> GeneratedAnswer:
        self.sent.append((system, [*messages], tools))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, tuple):
            return GeneratedAnswer("Let me see, 99 [1].", StopReason.TOOL_USE, 1, 1, calls=reply)
        if isinstance(reply, StopReason):
            return GeneratedAnswer(self.blocked, reply, 1, 1)
        return GeneratedAnswer(reply, StopReason.END_TURN, 1, 1)

    def stream(self, messages: Sequence[Message], **options: Any) -> AnswerStream:
        def pieces() -> Generator[str, None, GeneratedAnswer]:
            answer = self.converse(messages, **options)
            for piece in answer.text.split(" "):
                yield f"{piece} "
            return answer

        return AnswerStream(pieces())

    def check(self) -> None:
        raise NotImplementedError
