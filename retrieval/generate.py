"""Text generation on Amazon Bedrock, by Converse, with one retry layer."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
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
    """The model gave no answer within the time limit."""


class GenerationRejectedError(RejectedError):
    """The model refuses this conversation; usually it is too long."""


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class GeneratedAnswer:
    """An answer, the reason of its end, and its cost in tokens."""

    text: str
    stop_reason: str
    """Bedrock's values: end_turn, max_tokens, stop_sequence, guardrail_intervened, content_filtered."""
    input_tokens: int
    output_tokens: int


class BedrockGenerator:
    """Asks one text model. Pickles as its configuration; a process opens one client."""

    def __init__(self, config: BedrockGenerationConfig) -> None:
        self._config = config

    @property
    def model(self) -> str:
        """The model's id."""
        return self._config.model

    def converse(
        self, messages: Sequence[Message], *, system: str = "", max_tokens: int | None = None
    ) -> GeneratedAnswer:
        """Return the answer to a conversation that starts and ends with the user. Every call costs a model call.

        Raises:
            GenerationUnavailableError: the model did not answer, or throttled, for `timeout_seconds`.
            GenerationRejectedError: the model refuses the conversation.
        """
        config = self._config
        request: dict[str, Any] = {
            "modelId": config.model,
            "messages": [{"role": turn.role, "content": [{"text": turn.text}]} for turn in messages],
            "system": [{"text": system}] if system else [],
            "inferenceConfig": {"maxTokens": max_tokens or config.max_tokens, "temperature": config.temperature},
        }
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Throttled, Unanswered)),
            wait=_backoff,
            stop=tenacity.stop_after_delay(config.timeout_seconds),
            reraise=True,
        )
        try:
            return retrying(self._attempt, request)
        except (Throttled, Unanswered) as error:
            raise GenerationUnavailableError(
                f"the text model gave no complete answer: {error.condition}",
                condition="GENERATION_MODEL_UNAVAILABLE",
                hint="ask again; if it goes on, raise the account's quota or choose another model",
            ) from None
        except Refused as error:
            raise GenerationRejectedError(
                "the text model refuses this conversation",
                condition=error.condition,
                hint="ask with less context: the prompt may be too long for the model",
            ) from None

    def check(self) -> None:
        """Ask for one word; raise `ConfigurationError` if the model cannot be used as configured."""
        try:
            self.converse([Message("user", "Hello")], max_tokens=1)
        except (GenerationUnavailableError, GenerationRejectedError) as error:
            raise ConfigurationError(
                f"generation: the model {self.model!r} gives no answer at {self._config.where}",
                condition=error.condition,
                hint="check generation.model, generation.region and generation.endpoint_url",
            ) from error

    def _attempt(self, request: Mapping[str, Any]) -> GeneratedAnswer:
        with bedrock_outcomes(self._config, "generation"):
            answer = _client(self._config).converse(**request)
        usage = answer["usage"]
        text = "".join(block.get("text", "") for block in answer["output"]["message"]["content"])
        return GeneratedAnswer(text, answer["stopReason"], usage["inputTokens"], usage["outputTokens"])


def _backoff(state: tenacity.RetryCallState) -> float:
    """The delay that the provider names, else an exponential one with jitter, in seconds."""
    failure = state.outcome.exception() if state.outcome else None
    named = failure.retry_after if isinstance(failure, Throttled) else None
    return named or tenacity.wait_exponential_jitter(initial=0.2, max=10, jitter=0.2)(state)


@functools.cache
def _client(config: BedrockGenerationConfig) -> BedrockRuntimeClient:
    return open_client(config, connections=8)
