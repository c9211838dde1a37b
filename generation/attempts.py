"""The one retry layer before a text model: throttles and silences are tried again until the time is up."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from embeddings.outcomes import Refused, Throttled, Unanswered
from embeddings.retrying import retrying
from generation.errors import GenerationRejectedError, GenerationUnavailableError
from generation.protocol import GeneratedAnswer, Generator, Message
from schemas.errors import ConfigurationError

type Pieces = abc.Generator[str, None, GeneratedAnswer]
"""Yields the text of an answer and returns the whole of it."""


def answered(attempt: Callable[[], GeneratedAnswer], seconds: float) -> GeneratedAnswer:
    """Try until an answer comes; raises as `Generator` says."""
    with _errors():
        return retrying(seconds)(attempt)


def streamed(attempt: Callable[[], Pieces], seconds: float) -> Pieces:
    """Try until the first piece comes, then go on with that attempt: a second one would repeat or contradict its text."""
    with _errors():
        pieces, first = retrying(seconds)(_begun, attempt)
        if isinstance(first, GeneratedAnswer):
            return first
        with closing(pieces):
            yield first
            return (yield from pieces)


def check_answers(generator: Generator, where: str, keys: str) -> None:
    """Ask for one word; raises `ConfigurationError` that names the configuration's `keys`."""
    try:
        generator.converse([Message("user", "Hello")], max_tokens=1)
    except (GenerationUnavailableError, GenerationRejectedError) as error:
        raise ConfigurationError(
            f"generation: the model {generator.model!r} gives no answer at {where}",
            condition=error.condition,
            hint=f"check {keys}",
        ) from error


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
