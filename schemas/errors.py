"""Every error the package raises on purpose.

PipelineError
├── ConfigurationError     exit 2   the configuration or a part is wrong; nothing was written
├── UnavailableError       retried  a part does not answer; the work is retried
│   └── ModelUnavailableError        the embedding model, while a store was to be written
├── StoppedError           exit 3   the job stopped itself; nothing is lost and a command goes on
│   └── SourceGoneError             a stream, topic or position that was needed has vanished
└── RejectedError          rejects  one record or text that can never be processed
    └── DocumentRefusedError        a store will not take one of the documents of a write

A message says what, where and how to mend it. It never holds a row's text or a secret (I14).
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of all errors of this package; `condition` is stable, the prose is not."""

    exit_status = 3

    def __init__(self, message: str, *, condition: str = "", hint: str = "") -> None:
        """`condition` is the class's name in capitals unless given; `hint` says how to mend it."""
        super().__init__(message)
        self.message = message
        self.condition = condition or type(self).__name__.removesuffix("Error").upper()
        self.hint = hint

    def __str__(self) -> str:
        """Render message and hint as one paragraph."""
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by value: Python's own way calls `__init__` without the keywords."""
        return _rebuild, (type(self), self.message, self.condition, self.hint)


def _rebuild(kind: type[PipelineError], message: str, condition: str, hint: str) -> PipelineError:
    return kind(message, condition=condition, hint=hint)


class ConfigurationError(PipelineError):
    """The configuration, a store or a right is wrong; raised before anything was written."""

    exit_status = 2


class UnavailableError(PipelineError):
    """A part did not answer; a retry succeeds once it is back."""


class ModelUnavailableError(UnavailableError):
    """The embedding model did not answer; the stores are not to blame for what was not written."""


class StoppedError(PipelineError):
    """The job stopped itself; the message says what was lost or refused, and the command to go on with."""


class SourceGoneError(StoppedError):
    """A position, shard, topic or stream that the checkpoint needs no longer exists."""


class RejectedError(PipelineError):
    """One record or text can never be processed; a retry cannot help."""


class DocumentRefusedError(RejectedError):
    """A store can never take one of the documents of a write; it may have written others of them."""
