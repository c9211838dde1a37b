"""Several stores written at once, each by a thread of its own; a store may delay the others until its deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from schemas.errors import ModelUnavailableError, UnavailableError

_PAUSE_SECONDS = 0.2
"""Between two attempts at a store that does not answer."""


def write_all(writes: Mapping[str, Callable[[], None]], deadlines: Mapping[str, float]) -> set[str]:
    """Write every store, by its name, and wait for all; those that stayed away past their deadline (seconds) are missed.

    A write is repeated until then, so it must be idempotent. One store alone is written in the caller's thread, once.

    Raises:
        UnavailableError: all are away, or one without a deadline is, or the model.
        PipelineError: a store refuses for good; raised once the others are done.
    """
    if len(writes) == 1:
        for write in writes.values():
            write()
        return set()
    with ThreadPoolExecutor(len(writes), thread_name_prefix="store") as pool:
        attempts = {name: pool.submit(_until, write, deadlines.get(name)) for name, write in writes.items()}
    away = {name: error for name, attempt in attempts.items() if (error := attempt.result()) is not None}
    if len(away) == len(writes):
        raise next(iter(away.values()))
    return set(away)


def _until(write: Callable[[], None], deadline: float | None) -> UnavailableError | None:
    """Write, and repeat until the deadline, which counts from the begin of the first call that failed."""
    failing_since = None
    while True:
        began = time.monotonic()
        try:
            write()
        except ModelUnavailableError:
            raise
        except UnavailableError as error:
            if deadline is None:
                raise
            failing_since = failing_since or began
            if time.monotonic() - failing_since >= deadline:
                return error
            time.sleep(_PAUSE_SECONDS)
        else:
            return None
