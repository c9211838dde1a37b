"""PostgreSQL's position: the log sequence numbers (LSN) of the last commit and of the row."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transforms.positions.sequence import NoPositionError, position_of, whole_number

_LSNS = re.compile(r'\[ *(?:null|"?([0-9]{1,20})"?) *, *(?:null|"?([0-9]{1,20})"?) *\]')


def source_position(source: Mapping[str, Any]) -> str:
    """Read `sequence`, which is `[last commit, row]` as text; `lsn` is the row's where that is missing."""
    text, lsn = source.get("sequence"), source.get("lsn")
    commit = row = None
    if text is not None:
        match = _LSNS.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise NoPositionError("sequence is not [commit, row]")
        commit, row = match.groups()
    return lsn_position(int(commit) if commit else None, int(row) if row else whole_number(lsn))


def lsn_position(last_commit_lsn: int | None, lsn: int | None) -> str:
    """Rank by (last commit, row): row positions alone interleave between transactions.

    A missing last commit (snapshot, first change after a restart) means the row's own position, and the reverse.
    Raises ValueError when both are missing.
    """
    row = last_commit_lsn if lsn is None else lsn
    commit = row if last_commit_lsn is None else last_commit_lsn
    if commit is None or row is None:
        raise ValueError("neither a commit position nor a row position")
    return position_of(commit, row, 0)
