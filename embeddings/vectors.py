"""The one judge of vectors, whichever model, cache or lake they come from. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embeddings.protocol import Embedding, EmbeddingRejected, Vector

BAD_VECTOR = "BAD_VECTOR"
"""The condition of a text whose vector no store can be given."""
WRONG_LENGTH = "WRONG_VECTOR_LENGTH"
"""The same, where the vector has another length than the one configured."""


def checked(numbers: object, dimensions: int) -> Embedding:
    """A model's vector as float32, or the rejection of its text: missing, of another length, zero, or not all finite numbers.

    No store is asked first: one refuses a zero vector, one keeps it and never finds it.
    """
    if not isinstance(numbers, list | np.ndarray) or not len(numbers):
        return EmbeddingRejected(BAD_VECTOR, "the model answers no vector for this text")
    try:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and told below
            vector: Vector = np.asarray(numbers, np.float32)
    except (TypeError, ValueError, OverflowError):
        return EmbeddingRejected(BAD_VECTOR, "the model's vector of this text holds something else than numbers")
    if vector.shape != (dimensions,):
        told = "x".join(map(str, vector.shape))
        return EmbeddingRejected(WRONG_LENGTH, f"the model's vector of this text has {told} numbers, not {dimensions}")
    if not is_usable(vector):
        return EmbeddingRejected(BAD_VECTOR, "the model's vector of this text is zero or not finite")
    return vector


def mean(vectors: Sequence[Vector], weights: Sequence[int]) -> Vector:
    """The mean direction of vectors, of unit length; zero where they cancel each other."""
    exact = [np.asarray(vector, np.float64) for vector in vectors]
    whole = np.average([vector / np.linalg.norm(vector) for vector in exact], axis=0, weights=weights)
    unit: Vector = (whole / (np.linalg.norm(whole) or 1)).astype(np.float32)
    return unit


def is_usable(vector: Vector) -> bool:
    """Whether a vector has a direction: finite numbers that are not all zero, and whose length float32 can tell."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return bool(np.isfinite(length)) and length > _SHORTEST


_SHORTEST = float(np.finfo(np.float32).tiny) ** 0.5
"""Squares of shorter vectors are zero in float32, in which stores compute a cosine."""
