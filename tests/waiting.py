"""The one way in which tests wait: until something is true, and no longer."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

WAIT_SECONDS = 60.0
"""Long: a busy machine may not fail a test. Only a test that fails waits for so long."""
SHOWN = 20


type Process = subprocess.Popen[str] | subprocess.Popen[bytes]


class NothingWrong:
    """A condition that is true once a function returns no more lines of what is wrong."""

    def __init__(self, wrong: Callable[[], Sequence[str]]) -> None:
        self._wrong = wrong
        self._last: Sequence[str] = ()

    def __call__(self) -> bool:
        self._last = list(self._wrong())
        return not self._last

    def __str__(self) -> str:
        more = f"\n… and {len(self._last) - SHOWN} more" if len(self._last) > SHOWN else ""
        return "\n".join(self._last[:SHOWN]) + more


def eventually(condition: Callable[[], object], seconds: float = WAIT_SECONDS, driver: Process | None = None) -> bool:
    """Return True once the condition is true; fail the test when time is over, or when the driver has ended before."""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        if condition():
            return True
        why = f": {condition}" if isinstance(condition, NothingWrong) else ""
        assert driver is None or driver.poll() is None, f"the driver ended with {driver.returncode}{why}"
        now = time.monotonic()
        assert now - began < seconds, f"not true after {seconds:.0f} s{why}"
        # As long as the condition took: what the condition waits for needs the processor as well.
        time.sleep(max(0.005, min(0.1, (now - began) / 10), now - asked))
