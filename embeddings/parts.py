"""A text longer than its model takes, embedded in parts: its vector is the mean of theirs. Pure but for the model calls.

The cut depends only on the text and on what the model refuses, and the vector is stored under the whole text's hash. So a chunk
is one chunk in every store, and a replay, a rebuild or a second store needs no further model call (ADR 0025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from embeddings.protocol import TEXT_TOO_LONG, Embedding, EmbeddingRejected
from embeddings.vectors import checked, mean
from transforms.documents.chunking import windows_of
from transforms.documents.words import is_blank

MOST_CUTS = 5
"""The number of halvings. A chunk fits the model by the estimate of four bytes a token, and no tokenizer makes more tokens than
bytes, so two halvings are usually enough."""


def in_parts(
    texts: Sequence[str], embed: Callable[[Sequence[str]], Mapping[str, Embedding]], most_chars: int
) -> dict[str, Embedding]:
    """Embed texts; a part that the model refuses for its length is halved, and the halves are embedded.

    Each distinct part is sent once. A text with a part without a vector is rejected for that part's reason.
    """
    parts = {text: _visible(windows_of(text, most_chars)) for text in texts}
    known: dict[str, Embedding] = {}
    for cuts in range(MOST_CUTS + 1):
        missing = [part for part in dict.fromkeys(chain.from_iterable(parts.values())) if part not in known]
        known |= embed(missing)
        halved = {part: _halves(part) for part in missing if _is_too_long(known[part]) and len(part) > 1}
        if not halved or cuts == MOST_CUTS:
            break
        parts = {text: [p for part in cut for p in halved.get(part, [part])] for text, cut in parts.items()}
    return {text: _mean([(part, known[part]) for part in cut]) for text, cut in parts.items()}


def _is_too_long(embedding: Embedding) -> bool:
    return isinstance(embedding, EmbeddingRejected) and embedding.condition == TEXT_TOO_LONG


def _halves(part: str) -> list[str]:
    return _visible(windows_of(part, -(-len(part) // 2)))


def _visible(parts: Iterable[str]) -> list[str]:
    return [part for part in parts if not is_blank(part)]


def _mean(parts: Sequence[tuple[str, Embedding]]) -> Embedding:
    """The mean of the parts' vectors, weighed by their lengths."""
    rejected = next((e for _, e in parts if isinstance(e, EmbeddingRejected)), None)
    if rejected is not None or len(parts) == 1:
        return rejected or parts[0][1]
    vectors = [np.asarray(vector, np.float32) for _, vector in parts]
    return checked(mean(vectors, [len(part) for part, _ in parts]), len(vectors[0]))
