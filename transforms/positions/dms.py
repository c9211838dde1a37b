"""The position in AWS DMS's `stream-position`, which has a form for each engine; PostgreSQL's is the one known here."""

from __future__ import annotations

import re
from typing import Any

from transforms.positions.sequence import NO_SOURCE_POSITION, position_of

_POSTGRESQL = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\.(\d+)\.([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


def source_position(stream_position: Any, *, full_load: bool) -> str:
    """Read `HHHHHHHH/HHHHHHHH.n.HHHHHHHH/HHHHHHHH` as (first LSN, second LSN, n); a full load has no position.

    The middle number is not padded, so the text itself does not sort. Raises ValueError for any other form.
    """
    if full_load:
        return NO_SOURCE_POSITION
    match = _POSTGRESQL.fullmatch(stream_position) if isinstance(stream_position, str) else None
    if not match:
        raise ValueError("stream-position is not PostgreSQL's HHHHHHHH/HHHHHHHH.n.HHHHHHHH/HHHHHHHH")
    high, low, count, high2, low2 = match.groups()
    return position_of(int(high.zfill(8) + low.zfill(8), 16), int(high2.zfill(8) + low2.zfill(8), 16), int(count))
