"""The interface of a text model: `Generator`, its conversations, and the answer whole or in pieces."""

from __future__ import annotations

from collections import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, Protocol, Self


@dataclass(frozen=True, slots=True)
class Tool:
    """Something that a model may ask to be run. Running it is the caller's: a generator only passes the request on."""

    name: str
    """1 to 64 letters, digits, `_` and `-` (Converse's `ToolName`)."""
    description: str
    schema: Mapping[str, Any]
    """JSON Schema of the input, an object. No provider promises that an input follows it."""


class ToolCall(NamedTuple):
    """A model's request to run a tool. Name and input are what the model wrote: neither is checked."""

    id: str
    """Names the call within its conversation; made up where the model gives none."""
    name: str
    input: Mapping[str, Any] | None
    """None where it is no JSON object."""


class ToolResult(NamedTuple):
    """What a tool call gave."""

    id: str
    """Of the call."""
    text: str
    is_error: bool = False


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    text: str
    """Empty only beside calls or results."""
    calls: tuple[ToolCall, ...] = ()
    """Of an assistant's turn; the next turn has a result for each."""
    results: tuple[ToolResult, ...] = ()
    """Of a user's turn."""


class StopReason(StrEnum):
    """Why an answer ended; Converse's values, to which the other providers' are mapped."""

    END_TURN = "end_turn"
    TOOL_USE = "tool_use"
    """The model waits for the results of its calls."""
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    GUARDRAIL = "guardrail_intervened"
    """A guardrail replaced the answer by its own message."""
    FILTERED = "content_filtered"
    """The provider's filter ended the answer."""
    OTHER = "other"
    """Whatever else the provider says."""


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """An answer, the reason of its end, and its cost in tokens."""

    text: str
    """The text alone; what a model thinks aloud is left out. Of a refusal, what the provider said instead: not an answer."""
    stop_reason: StopReason
    input_tokens: int
    """As the provider counts them; 0 where it does not say."""
    output_tokens: int
    refusal: str = ""
    """Which rule of a guardrail or filter refused, such as `topic Investments (input)`; it holds nothing of the conversation."""
    calls: tuple[ToolCall, ...] = ()
    """What the model wants to be run before it goes on, where it was offered tools; the text is then no answer yet."""

    @property
    def is_refusal(self) -> bool:
        """Whether a guardrail or a filter took the place of the model."""
        return self.stop_reason in {StopReason.GUARDRAIL, StopReason.FILTERED}


class AnswerStream:
    """An answer as it comes: iterate over its pieces of text, then read `answer`. Not thread-safe; it is iterated once.

    A model may write text before it calls a tool: that is known at the end alone, by `answer.calls`.
    """

    def __init__(self, pieces: abc.Generator[str, None, GeneratedAnswer]) -> None:
        """`pieces` yields the text and returns the answer."""
        self._pieces = pieces
        self._answer: GeneratedAnswer | None = None

    def __iter__(self) -> abc.Iterator[str]:
        self._answer = yield from self._pieces

    @property
    def answer(self) -> GeneratedAnswer:
        """The whole answer. Where it is a refusal, its pieces are to be taken back: a guardrail may intervene behind them."""
        for _ in self if self._answer is None else ():
            pass
        if self._answer is None:
            raise RuntimeError("the stream was closed before its end")
        return self._answer

    def close(self) -> None:
        """End the answer early; the provider is not read any further."""
        self._pieces.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Generator(Protocol):
    """Continues a conversation that starts and ends with the user.

    Every call costs a model call, also a repeated one. Instances pickle as their configuration; a process opens one client, on
    first use. Thread-safe.

    Errors: `GenerationUnavailableError` where the model gives no answer, or throttles, for the configured time, and where a
    stream breaks off; `GenerationRejectedError` where the model refuses the conversation; `ConfigurationError` where no retry
    can help. A guardrail's intervention is no error but an answer: see `GeneratedAnswer.is_refusal`.
    """

    @property
    def model(self) -> str:
        """The model's name, for users."""

    @property
    def takes_tools(self) -> bool:
        """Whether the configured form has a place for tools; without one they are left out."""

    def converse(
        self,
        messages: Sequence[Message],
        *,
        system: str = "",
        max_tokens: int | None = None,
        tools: Sequence[Tool] = (),
    ) -> GeneratedAnswer:
        """Return the answer, or the calls of `tools` it needs first; `max_tokens` replaces the configured limit of its length.

        A conversation with calls and results is continued with the same tools.
        """

    def stream(
        self,
        messages: Sequence[Message],
        *,
        system: str = "",
        max_tokens: int | None = None,
        tools: Sequence[Tool] = (),
    ) -> AnswerStream:
        """Return the answer as it comes. Nothing is sent before the first piece is asked for, and nothing is retried after it."""

    def check(self) -> None:
        """Ask for one word; raise `ConfigurationError` with a hint when the model cannot be used as configured."""
