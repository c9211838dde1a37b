"""The position of Oracle: the system change number (SCN) of the commit, and the place of the change in its transaction.

LogMiner gives that place as `txSeq` or, before Debezium had it, as `scn`, `rs_id` (the redo log's sequence, block and
offset) and `ssn`; XStream as `lcr_position`, whose bytes compare. A transaction's changes all have one form, unless a newer
connector sends it again: `txSeq` ranks above the older form, so what it sends again replaces what was there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transforms.positions.sequence import NoPositionError, position_of, shape, whole_number

_SCN = re.compile(r"[0-9]{1,19}")
_REDO = re.compile(r" *0x([0-9A-Fa-f]{1,8})\.([0-9A-Fa-f]{1,8})\.([0-9A-Fa-f]{1,4}) *")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_BY_NUMBER = 1 << 63
"""Set in the second part of a position by `txSeq`."""
_SCN_BYTES = (8, 6)
"""Of an LCR position's versions 2 and 1."""
_PLACE_BYTES = 8
"""Beside each of the two SCNs in an LCR position; a byte with the version follows."""
_STATEMENT_BITS = 48


def source_position(source: Mapping[str, Any]) -> str:
    """Read the commit's SCN and the place in the transaction; a snapshot's row has the SCN that the snapshot shows.

    Raises NoPositionError for every other form, ValueError for a number out of range.
    """
    lcr, commit = source.get("lcr_position"), _scn("commit_scn", source.get("commit_scn"))
    if lcr is not None:
        return _by_lcr(lcr, commit, _scn("scn", source.get("scn")))
    if commit is None:
        return _by_snapshot(source)
    number = whole_number(source.get("txSeq"))
    if number is not None:
        if not 0 <= number < _BY_NUMBER:
            msg = "txSeq is not a number of 63 bits"
            raise NoPositionError(msg)
        return position_of(commit, _BY_NUMBER | number, 0)
    return _by_redo(source, commit)


def _by_snapshot(source: Mapping[str, Any]) -> str:
    scn = _scn("scn", source.get("scn"))
    if scn is None or source.get("snapshot") in {None, False, "false"}:
        msg = f"a change has neither commit_scn nor lcr_position (scn is {shape(source.get('scn'))}); its order is not known"
        raise NoPositionError(msg)
    return position_of(scn, 0, 0)


def _by_redo(source: Mapping[str, Any], commit: int) -> str:
    """Within one redo thread, which a transaction stays in, the redo's place orders as the SCN does, and finer."""
    redo, number = source.get("rs_id"), whole_number(source.get("ssn")) or 0
    match = _REDO.fullmatch(redo) if isinstance(redo, str) else None
    if match is None:
        msg = f"commit_scn comes without txSeq, and rs_id is {shape(redo)} and not 0x, sequence.block.offset"
        raise NoPositionError(msg)
    sequence, block, offset = (int(digits, 16) for digits in match.groups())
    if sequence >> 31 or not 0 <= number < 1 << _STATEMENT_BITS:
        msg = "rs_id or ssn is out of range"
        raise NoPositionError(msg)
    return position_of(commit, sequence << 32 | block, offset << _STATEMENT_BITS | number)


def _by_lcr(lcr: Any, commit: int | None, scn: int | None) -> str:
    """Read the SCN of the commit, that of the change, and what stands beside the latter; the record's SCNs confirm both."""
    data = bytes.fromhex(lcr) if isinstance(lcr, str) and _HEX.fullmatch(lcr) else b""
    for width in _SCN_BYTES:
        if len(data) != 2 * (width + _PLACE_BYTES) + 1:
            continue
        start = width + _PLACE_BYTES
        first, second = int.from_bytes(data[:width]), int.from_bytes(data[start : start + width])
        if scn == second and commit in {None, first}:
            return position_of(first, second, int.from_bytes(data[start + width : -1]))
    msg = f"lcr_position is {shape(lcr)}, and has the record's SCNs in no form that is known here"
    raise NoPositionError(msg)


def _scn(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, str) or not _SCN.fullmatch(value):
        msg = f"{name} is {shape(value)} and not a number as text"
        raise NoPositionError(msg)
    return int(value)
