"""What a reader tells of an exception that it died of."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path

from reader.messages import ReaderFailedError
from schemas.errors import PipelineError

_FRAMES = 3


def told(error: BaseException) -> Exception:
    """A copy of an error of ours, without the frames that hold rows; any other by type and place: its message may quote one."""
    if isinstance(error, PipelineError):
        return copy.copy(error)
    if isinstance(error, ReaderFailedError):
        return ReaderFailedError(*error.args)
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return ReaderFailedError(f"{type(error).__name__} at {where}")
