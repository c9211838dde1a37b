"""Several stores written at once, each by a thread of its own; one that stays away holds the others up no longer than it may."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from schemas.errors import ModelUnavailableError, UnavailableError

_PAUSE_SECONDS = 0.2
"""Between two attempts at a store that does not answer."""


def write_all(writes: Mapping[str, Callable[[], None]], deadlines: Mapping[str, float]) -> set[str]:
    """Write every store, by its name, and wait for all; those that stayed away past their deadline (seconds) are missed.

    A write must not mind being called again. Alone, a store is written in the caller's thread and raises what it raises.

    Raises:
        UnavailableError: all are away, or one without a deadline is, or the model.
        PipelineError: a store can never be written; the others are waited for all the same.
    """
    if len(writes) == 1:
        for write in writes.values():
            write()
        return set()
    with ThreadPoolExecutor(len(writes), thread_name_prefix="store") as pool:
        tries = {name: pool.submit(_until, write, deadlines.get(name)) for name, write in writes.items()}
    away = {name: error for name, attempt in tries.items() if (error := attempt.result()) is not None}
    if len(away) == len(writes):
        raise next(iter(away.values()))
    return set(away)


def _until(write: Callable[[], None], deadline: float | None) -> UnavailableError | None:
    """Write, again and again until the deadline; a call that waits for its answer counts from its beginning."""
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
