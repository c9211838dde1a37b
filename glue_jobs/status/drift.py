"""The drift that the last reconciliation of each store left, as a small JSON file beside the checkpoints.

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
    """Remaining differences between a store and the lake by kind, and the time of the check (seconds since the epoch)."""

    left: Mapping[str, int]
    checked_at: float

    @property
    def total(self) -> int:
        """All kinds together."""
        return sum(self.left.values())


def record(checkpoint: str, store: str, left: Mapping[str, int]) -> None:
    """Replace the stored drift of a store."""
    files.write(_place(checkpoint, store), json.dumps(asdict(Drift(dict(left), time.time()))))


def last(checkpoint: str, store: str) -> Drift | None:
    """The stored drift; None for a store that was never compared."""
    text = files.read(_place(checkpoint, store))
    return None if text is None else Drift(**json.loads(text))


def forget(checkpoint: str, store: str) -> None:
    """Remove the stored drift of a store that left the pipeline."""
    if last(checkpoint, store) is not None:
        files.remove(_place(checkpoint, store))


def _place(checkpoint: str, store: str) -> str:
    return f"{checkpoint.rstrip('/')}/reconcile/{escape(store)}.json"
