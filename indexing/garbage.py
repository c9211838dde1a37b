"""Garbage collection in processes that stay: PySpark's workers, and readers."""

from __future__ import annotations

import gc


def freeze() -> None:
    """Exempt all present objects from later collections: each walks the others, and stops every thread meanwhile."""
    gc.collect()
    gc.freeze()
