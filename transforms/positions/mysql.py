"""The position of MySQL: its place in the binary log. GTIDs name transactions and do not order them, so they are not read.

Transactions that the server compressed (`binlog_transaction_compression`) have one position for all their changes; the
stream's own order decides among the changes of a row there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transforms.positions.binlog import binlog_position


def source_position(source: Mapping[str, Any]) -> str:
    """Read the place in the binary log; raises NoPositionError where there is none, ValueError for a number out of range."""
    return binlog_position(source)
