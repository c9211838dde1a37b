"""The one retry layer before a text model: throttles and silences are tried again until the time is up."""

from __future__ import annotations

import json
from collections import abc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from embeddings.budget.budget import BudgetUsedUpError
from embeddings.budget.spending import Spending
from embeddings.outcomes import Refused, Throttled, Unanswered
from embeddings.prices import Usage
from embeddings.retrying import retrying
from generation.errors import GenerationBudgetError, GenerationRejectedError, GenerationUnavailableError
from generation.protocol import GeneratedAnswer, Generator, Message, Tool
from generation.rules import RemoteAnswers
from schemas.errors import ConfigurationError
from transforms.documents.chunking import tokens

type Pieces = abc.Generator[str, None, GeneratedAnswer]
"""Yields the text of an answer and returns the whole of it."""


def answered(attempt: Callable[[], GeneratedAnswer], seconds: float, spending: Spending) -> GeneratedAnswer:
    """Try until an answer comes, each time in turn of the budget; raises as `Generator` says."""

    def counted() -> GeneratedAnswer:
        with spending.attempt() as receipt:
            answer = attempt()
            receipt.used = _used(spending, answer)
            return answer

    with _errors():
        return retrying(seconds)(counted)


def streamed(attempt: Callable[[], Pieces], seconds: float, spending: Spending) -> Pieces:
    """Try until the first piece comes, then go on with that attempt: a second one would repeat or contradict its text."""
    with _errors():
        pieces, first = retrying(seconds)(_begun, lambda: _counted(attempt, spending))
        if isinstance(first, GeneratedAnswer):
            return first
        with closing(pieces):
            yield first
            return (yield from pieces)


def check_answers(generator: Generator, where: str, keys: str) -> None:
    """Ask for one word; raises `ConfigurationError` that names the configuration's `keys`."""
    try:
        generator.converse([Message("user", "Hello")], max_tokens=1)
    except GenerationBudgetError:
        return  # the model is not to be asked now, which says nothing of the configuration
    except (GenerationUnavailableError, GenerationRejectedError) as error:
        raise ConfigurationError(
            f"generation: the model {generator.model!r} gives no answer at {where}",
            condition=error.condition,
            hint=f"check {keys}",
        ) from error


def spending_of(
    config: RemoteAnswers,
    messages: Sequence[Message],
    system: str,
    max_tokens: int | None,
    tools: Sequence[Tool] = (),
) -> Spending:
    """What an answer takes from the model's budget: its prompt with the tools in it, and as many tokens as it may have.

    Amazon Bedrock's own quota counts like this ("How tokens are counted in Amazon Bedrock": the maximum is taken first, then
    corrected).
    """
    texts = [
        system,
        *(text for message in messages for text in (message.text, *(result.text for result in message.results))),
    ]
    texts += [f"{tool.name} {tool.description} {json.dumps(tool.schema)}" for tool in tools]
    return Spending.of(config, "generation", Usage(sum(map(tokens, texts)), max_tokens or config.max_tokens))


def _counted(attempt: Callable[[], Pieces], spending: Spending) -> Pieces:
    """The pieces of an attempt in turn of the budget; a reader who stops has paid for what came."""
    with spending.attempt() as receipt:
        pieces, output_tokens = attempt(), 0
        with closing(pieces):
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    answer: GeneratedAnswer = end.value
                    receipt.used = _used(spending, answer)
                    return answer
                output_tokens += tokens(piece)
                receipt.used, receipt.sent = Usage(spending.usage.input, output_tokens), True
                yield piece


def _used(spending: Spending, answer: GeneratedAnswer) -> Usage:
    """The tokens of an answer; those that the provider does not say are estimated."""
    return Usage(answer.input_tokens or spending.usage.input, answer.output_tokens or tokens(answer.text))


def _begun(attempt: Callable[[], Pieces]) -> tuple[Pieces, str | GeneratedAnswer]:
    pieces = attempt()
    try:
        return pieces, next(pieces)
    except StopIteration as end:
        answer: GeneratedAnswer = end.value
        return pieces, answer


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except BudgetUsedUpError as error:
        raise GenerationBudgetError(error.message, condition=error.condition, hint=error.hint) from None
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
