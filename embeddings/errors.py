"""The errors of embedding."""

from __future__ import annotations

from schemas.errors import ConfigurationError, PipelineError, RejectedError, UnavailableError


class DimensionMismatchError(ConfigurationError):
    """The model returns vectors of another size than the configured one, or none at all."""


class EmbeddingUnavailableError(UnavailableError):
    """The model did not answer within the caller's time limit."""


class EmbeddingRejectedError(RejectedError):
    """The model can never embed this text."""


class ModelAnswerError(PipelineError):
    """The model's response has another form than its family documents."""
