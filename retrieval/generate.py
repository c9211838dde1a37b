"""Text generation on Amazon Bedrock: Converse and ConverseStream, and one retry layer that never repeats a word."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import tenacity

from embeddings.bedrock.runtime import bedrock_outcomes, open_client
from embeddings.outcomes import Refused, Throttled, Unanswered
from schemas.errors import ConfigurationError, RejectedError, UnavailableError

if TYPE_CHECKING:
    from mypy_boto3_bedrock_runtime.client import BedrockRuntimeClient

    from retrieval.config import BedrockGenerationConfig


class GenerationUnavailableError(UnavailableError):
    """The model gave no answer, or broke off, within the time allowed."""


class GenerationRejectedError(RejectedError):
    """The model will not take this conversation; usually it is too long."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """An answer, how it ended, and what it cost."""

    text: str
    stop_reason: str
    """Bedrock's word: end_turn, max_tokens, stop_sequence, guardrail_intervened, content_filtered."""
    input_tokens: int
    output_tokens: int


class BedrockGenerator:
    """Asks one text model. Pickles as its configuration; a process opens one client."""

    def __init__(self, config: BedrockGenerationConfig) -> None:
        """Keep the configuration; nothing is opened yet."""
        self._config = config

    @property
    def model(self) -> str:
        """The model's id, to say who answered."""
        return self._config.model

    def converse(
        self, messages: Sequence[Message], *, system: str = "", max_tokens: int | None = None
    ) -> GeneratedAnswer:
        """Return the whole answer to a conversation that starts and ends with the user.

        Throttles and outages are waited out for `timeout_seconds`, then `GenerationUnavailableError`; a conversation
        that the model refuses raises `GenerationRejectedError`.
        """
        request = self._request(messages, system, max_tokens)

        def attempt() -> GeneratedAnswer:
            with bedrock_outcomes(self._config, "generation"):
                answer = _client(self._config).converse(**request)
            usage = answer["usage"]
            text = "".join(block.get("text", "") for block in answer["output"]["message"]["content"])
            return GeneratedAnswer(text, answer["stopReason"], usage["inputTokens"], usage["outputTokens"])

        return self._with_retries(attempt)

    def converse_stream(
        self, messages: Sequence[Message], *, system: str = "", max_tokens: int | None = None
    ) -> Generator[str, None, GeneratedAnswer]:
        """Yield an answer piece by piece, and return it whole.

        Failures are retried as in `converse` only until the first piece: what was said is never said again. A stream
        that breaks off later raises `GenerationUnavailableError`.
        """
        request = self._request(messages, system, max_tokens)

        def attempt() -> _Stream:
            stream = _Stream(self._config, request)
            stream.begin()
            return stream

        return (yield from self._with_retries(attempt).pieces())

    def check(self) -> None:
        """Ask for one word; raise `ConfigurationError` when the model cannot be used as configured."""
        try:
            self.converse([Message("user", "Hello")], max_tokens=1)
        except (GenerationUnavailableError, GenerationRejectedError) as error:
            raise ConfigurationError(
                f"generation: the model {self.model!r} gives no answer at {self._config.where}",
                condition=error.condition,
                hint="check generation.model, generation.region and generation.endpoint_url",
            ) from error

    def _request(self, messages: Sequence[Message], system: str, max_tokens: int | None) -> dict[str, Any]:
        config = self._config
        return {
            "modelId": config.model,
            "messages": [{"role": turn.role, "content": [{"text": turn.text}]} for turn in messages],
            "system": [{"text": system}] if system else [],
            "inferenceConfig": {"maxTokens": max_tokens or config.max_tokens, "temperature": config.temperature},
        }

    def _with_retries[Answer](self, attempt: Callable[[], Answer]) -> Answer:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Throttled, Unanswered)),
            wait=_patience,
            stop=tenacity.stop_after_delay(self._config.timeout_seconds),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except (Throttled, Unanswered) as error:
            raise _unavailable(error) from None
        except Refused as error:
            raise GenerationRejectedError(
                "the text model refuses this conversation",
                condition=error.condition,
                hint="ask with less context: the prompt may be too long for the model",
            ) from None


class _Stream:
    """One response stream: begun while it may still be retried, then read once."""

    def __init__(self, config: BedrockGenerationConfig, request: dict[str, Any]) -> None:
        self._config = config
        self._request = request
        self._said: list[str] = []
        self._stop_reason = ""
        self._usage = {"inputTokens": 0, "outputTokens": 0}

    def begin(self) -> None:
        """Send the request and read up to the first piece of text."""
        with bedrock_outcomes(self._config, "generation"):
            self._events = iter(_client(self._config).converse_stream(**self._request)["stream"])
            self._first = self._next_piece()

    def pieces(self) -> Generator[str, None, GeneratedAnswer]:
        """Yield the pieces; raises `GenerationUnavailableError` when the stream breaks off between them."""
        piece = self._first
        while piece is not None:
            yield piece
            try:
                with bedrock_outcomes(self._config, "generation"):
                    piece = self._next_piece()
            except (Throttled, Unanswered, Refused) as error:
                raise _unavailable(error) from None
        usage = self._usage
        return GeneratedAnswer("".join(self._said), self._stop_reason, usage["inputTokens"], usage["outputTokens"])

    def _next_piece(self) -> str | None:
        """Return the next piece of text, or None at the end; events of other kinds are taken note of."""
        events: Iterable[Any] = self._events
        for event in events:
            # A reasoning model sends other deltas before its text.
            if text := event.get("contentBlockDelta", {}).get("delta", {}).get("text"):
                self._said.append(text)
                return str(text)
            self._stop_reason = event.get("messageStop", {}).get("stopReason", self._stop_reason)
            self._usage = event.get("metadata", {}).get("usage", self._usage)
        return None


def _patience(state: tenacity.RetryCallState) -> float:
    """Wait as long as the provider says, or twice as long as last time, with jitter."""
    failure = state.outcome.exception() if state.outcome else None
    named = failure.retry_after if isinstance(failure, Throttled) else None
    return named or tenacity.wait_exponential_jitter(initial=0.2, max=10, jitter=0.2)(state)


def _unavailable(error: Throttled | Unanswered | Refused) -> GenerationUnavailableError:
    return GenerationUnavailableError(
        f"the text model gave no complete answer: {error.condition}",
        condition="GENERATION_MODEL_UNAVAILABLE",
        hint="ask again; if it goes on, raise the account's quota or choose another model",
    )


@functools.cache
def _client(config: BedrockGenerationConfig) -> BedrockRuntimeClient:
    return open_client(config, connections=8)
