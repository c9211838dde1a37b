"""The errors that a reader reports: without the frames and messages that may hold a row."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path

from reader.messages import ReaderFailedError
from schemas.errors import PipelineError

_FRAMES = 3


def reportable(error: BaseException) -> Exception:
    """A copy of our own error without its frames; of any other the type and place, since its message may quote a row."""
    if isinstance(error, PipelineError):
        return copy.copy(error)
    if isinstance(error, ReaderFailedError):
        return ReaderFailedError(*error.args)
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return ReaderFailedError(f"{type(error).__name__} at {where}")
