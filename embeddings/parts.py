"""A text longer than its model takes, embedded in parts: its vector is the mean of theirs. Pure but for the asking.

The cut depends on the text and on what the model refuses alone, and the vector is kept under the whole text's name. So a chunk
stays one chunk in every store, and no replay, rebuild or second store cuts or asks again (ADR 0025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from embeddings.protocol import TEXT_TOO_LONG, Embedding, EmbeddingRejected
from embeddings.vectors import checked, mean
from transforms.documents.chunking import windows_of
from transforms.documents.words import is_blank

MOST_CUTS = 5
"""Times a part is halved. A chunk is cut to what the model takes by our estimate of four bytes a token, and no tokenizer makes
more tokens than bytes: two halvings do, as a rule."""


def in_parts(
    texts: Sequence[str], ask: Callable[[Sequence[str]], Mapping[str, Embedding]], most_chars: int
) -> dict[str, Embedding]:
    """The embeddings of texts; one that the model refuses for its length is halved and asked for again.

    A part is asked for once. A text of which a part has no vector is rejected for that part's reason.
    """
    parts = {text: _visible(windows_of(text, most_chars)) for text in texts}
    known: dict[str, Embedding] = {}
    for cuts in range(MOST_CUTS + 1):
        wanted = [part for part in dict.fromkeys(p for each in parts.values() for p in each) if part not in known]
        known |= ask(wanted)
        halved = {part: _halves(part) for part in wanted if _is_too_long(known[part]) and len(part) > 1}
        if not halved or cuts == MOST_CUTS:
            break
        parts = {text: [p for part in each for p in halved.get(part, [part])] for text, each in parts.items()}
    return {text: _mean([(part, known[part]) for part in each]) for text, each in parts.items()}


def _is_too_long(answer: Embedding) -> bool:
    return isinstance(answer, EmbeddingRejected) and answer.condition == TEXT_TOO_LONG


def _halves(part: str) -> list[str]:
    return _visible(windows_of(part, -(-len(part) // 2)))


def _visible(parts: Iterable[str]) -> list[str]:
    return [part for part in parts if not is_blank(part)]


def _mean(parts: Sequence[tuple[str, Embedding]]) -> Embedding:
    """The vector of a whole, each part weighed by its length."""
    rejected = next((told for _, told in parts if isinstance(told, EmbeddingRejected)), None)
    if rejected is not None or len(parts) == 1:
        return rejected or parts[0][1]
    vectors = [np.asarray(told, np.float32) for _, told in parts]
    return checked(mean(vectors, [len(part) for part, _ in parts]), len(vectors[0]))
