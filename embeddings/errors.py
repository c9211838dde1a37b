"""The errors of embedding: who must act, and whether trying again helps."""

from __future__ import annotations

from schemas.errors import ConfigurationError, PipelineError, RejectedError, UnavailableError


class DimensionMismatchError(ConfigurationError):
    """The model answers vectors of another size than the one configured, or none at all."""


class EmbeddingUnavailableError(UnavailableError):
    """The model did not answer within the time the caller allowed."""


class EmbeddingRejectedError(RejectedError):
    """The model will never take this one text."""


class ModelAnswerError(PipelineError):
    """The model's answer has another shape than its family documents."""
