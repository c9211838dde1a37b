"""What the last reconciliation of each store found, as a small JSON file beside the checkpoints.

`<checkpoint>/reconcile/<store>.json` is written by `ragstream reconcile` and read by `ragstream status`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from glue_jobs.storage import files
from lake.layout import escape


@dataclass(frozen=True, slots=True)
class Drift:
    """Differences between a store and the lake that were left, by kind, and when that was seen (seconds since the epoch)."""

    left: Mapping[str, int]
    checked_at: float

    @property
    def total(self) -> int:
        """All kinds together."""
        return sum(self.left.values())


def note(checkpoint: str, store: str, left: Mapping[str, int]) -> None:
    """Remember it in place of what was seen before."""
    files.write(_place(checkpoint, store), json.dumps(asdict(Drift(dict(left), time.time()))))


def last(checkpoint: str, store: str) -> Drift | None:
    """What was seen last; None for a store that was never compared."""
    text = files.read(_place(checkpoint, store))
    return None if text is None else Drift(**json.loads(text))


def forget(checkpoint: str, store: str) -> None:
    """Forget what was seen of a store that left the pipeline."""
    if last(checkpoint, store) is not None:
        files.remove(_place(checkpoint, store))


def _place(checkpoint: str, store: str) -> str:
    return f"{checkpoint.rstrip('/')}/reconcile/{escape(store)}.json"
