"""An answer while a text model writes it: each sentence is told once it is whole, and no piece is read once nobody wants it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from generation.errors import GenerationUnavailableError

if TYPE_CHECKING:
    from generation import AnswerStream, GeneratedAnswer
    from retrieval.drafts import Progress, Statement

_TRIES = 2
"""Of an answer that breaks off after it began. One that does not begin is tried again by the generator itself."""


def written(
    stream: Callable[[], AnswerStream], so_far: Callable[[str], Sequence[Statement]], progress: Progress
) -> GeneratedAnswer:
    """Read an answer to its end; tell `progress` of what may be said of the text `so_far`, after each piece.

    Where `progress` raises, the provider is not read any further. An answer that breaks off is asked for once more, from its
    beginning, as a model does not go on in the middle.

    Raises:
        GenerationUnavailableError: no answer began in time, or two of them broke off.
        GenerationRejectedError: the model refuses the conversation.
    """
    for tries_left in reversed(range(_TRIES)):
        text = ""
        try:
            with stream() as pieces:
                for piece in pieces:
                    text += piece
                    progress(so_far(text))
                answer = pieces.answer
        except GenerationUnavailableError:
            if not text or not tries_left:
                raise
        else:
            return answer
    raise AssertionError
