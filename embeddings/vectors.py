"""The validation of vectors, of any model, cache or lake. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embeddings.protocol import Embedding, EmbeddingRejected, Vector

BAD_VECTOR = "BAD_VECTOR"
"""The condition of a text without a usable vector."""
WRONG_LENGTH = "WRONG_VECTOR_LENGTH"
"""The condition of a text whose vector has another length than the configured one."""


def checked(numbers: object, dimensions: int) -> Embedding:
    """A model's vector as float32, or the rejection of its text: missing, of another length, zero, or not finite.

    Stores differ here, so none of them decides: one refuses a zero vector, another stores it and never finds it.
    """
    if not isinstance(numbers, list | np.ndarray) or not len(numbers):
        return EmbeddingRejected(BAD_VECTOR, "the model answers no vector for this text")
    try:
        with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite, and is rejected below
            vector: Vector = np.asarray(numbers, np.float32)
    except (TypeError, ValueError, OverflowError):
        return EmbeddingRejected(BAD_VECTOR, "the model's vector of this text holds something else than numbers")
    if vector.shape != (dimensions,):
        shape = "x".join(map(str, vector.shape))
        return EmbeddingRejected(WRONG_LENGTH, f"the model's vector of this text has {shape} numbers, not {dimensions}")
    if not is_usable(vector):
        return EmbeddingRejected(BAD_VECTOR, "the model's vector of this text is zero or not finite")
    return vector


def unit(value: object) -> object:
    """A vector scaled to length 1; what cannot be one is returned unchanged, for `checked` to reject."""
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(value, np.float32)
    except (TypeError, ValueError, OverflowError):
        return value
    if vector.ndim != 1 or not vector.size or not is_usable(vector):
        return value
    exact = vector.astype(np.float64)
    return (exact / np.linalg.norm(exact)).astype(np.float32)


def mean(vectors: Sequence[Vector], weights: Sequence[int]) -> Vector:
    """The weighted mean direction of vectors, of unit length; zero if they cancel out."""
    exact = [np.asarray(vector, np.float64) for vector in vectors]
    whole = np.average([vector / np.linalg.norm(vector) for vector in exact], axis=0, weights=weights)
    unit: Vector = (whole / (np.linalg.norm(whole) or 1)).astype(np.float32)
    return unit


def is_usable(vector: Vector) -> bool:
    """Whether a vector has a direction: finite numbers, not all zero, with a length that float32 can represent."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return bool(np.isfinite(length)) and length > _SHORTEST


_SHORTEST = float(np.finfo(np.float32).tiny) ** 0.5
"""The squared length of a shorter vector is zero in float32, in which stores compute a cosine."""
