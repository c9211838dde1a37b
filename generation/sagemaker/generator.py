"""Text generation behind SageMaker endpoints, by InvokeEndpoint and InvokeEndpointWithResponseStream, with one retry layer."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from embeddings.clients import open_client
from embeddings.sagemaker.runtime import request_to, sagemaker_outcomes
from generation.attempts import Pieces, answered, check_answers, spending_of, streamed
from generation.protocol import AnswerStream, GeneratedAnswer, Message, Tool
from generation.sagemaker import codecs

if TYPE_CHECKING:
    from generation.sagemaker.config import SageMakerGenerationConfig


class SageMakerGenerator:
    """A `Generator` over InvokeEndpoint. Pickles as its configuration; a process opens one client."""

    def __init__(self, config: SageMakerGenerationConfig) -> None:
        self._config = config

    @property
    def model(self) -> str:
        """The configured name of the model: the endpoint does not tell it."""
        return self._config.model

    @property
    def takes_tools(self) -> bool:
        """A prompt of text has no place for them."""
        return self._config.format == "messages"

    def converse(
        self,
        messages: Sequence[Message],
        *,
        system: str = "",
        max_tokens: int | None = None,
        tools: Sequence[Tool] = (),
    ) -> GeneratedAnswer:
        """Return the answer to a conversation; see `Generator`."""
        body = self._body(self._asked(messages, system, max_tokens, tools), stream=False)
        spending = spending_of(self._config, messages, system, max_tokens, tools)
        return answered(functools.partial(self._attempt, body), self._config.timeout_seconds, spending)

    def stream(
        self,
        messages: Sequence[Message],
        *,
        system: str = "",
        max_tokens: int | None = None,
        tools: Sequence[Tool] = (),
    ) -> AnswerStream:
        """Return the answer as it comes; see `Generator`."""
        body = self._body(self._asked(messages, system, max_tokens, tools), stream=True)
        spending = spending_of(self._config, messages, system, max_tokens, tools)
        return AnswerStream(streamed(functools.partial(self._pieces, body), self._config.timeout_seconds, spending))

    def check(self) -> None:
        """Ask for one word; see `Generator`."""
        check_answers(
            self,
            self._config.where,
            "generation.endpoint, generation.format, generation.region and generation.endpoint_url",
        )

    def _asked(
        self, messages: Sequence[Message], system: str, max_tokens: int | None, tools: Sequence[Tool]
    ) -> codecs.Asked:
        config = self._config
        most = max_tokens or config.max_tokens
        return codecs.Asked(messages, system, most, config.temperature, config.chat_template, tools)

    def _body(self, asked: codecs.Asked, *, stream: bool) -> bytes:
        if self._config.format == "inputs":
            return codecs.inputs_request(asked, stream=stream)
        return codecs.messages_request(asked, stream=stream)

    def _attempt(self, body: bytes) -> GeneratedAnswer:
        with sagemaker_outcomes(self._config, "generation"):
            answer: Any = _client(self._config).invoke_endpoint(**request_to(self._config, body))
            raw: bytes = answer["Body"].read()
        return codecs.whole(raw)

    def _pieces(self, body: bytes) -> Pieces:
        collected = codecs.Collected()
        with sagemaker_outcomes(self._config, "generation"):
            answer: Any = _client(self._config).invoke_endpoint_with_response_stream(**request_to(self._config, body))
            with closing(answer["Body"]) as events:
                for line in codecs.lines_of(_parts(events)):
                    yield from codecs.streamed(line, collected)
        return collected.answer()


def _parts(events: Any) -> Iterator[bytes]:
    for event in events:
        yield event.get("PayloadPart", {}).get("Bytes", b"")


@functools.cache
def _client(config: SageMakerGenerationConfig) -> Any:
    return open_client(config, "sagemaker-runtime", connections=8)
