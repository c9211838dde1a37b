"""The position of MariaDB: its place in the binary log. GTIDs order the changes of one domain only, so they are not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transforms.positions.binlog import binlog_position

_IN_INNODB = "; a binary log inside InnoDB (`binlog_storage_engine`) has GTIDs alone and no order that is known here"


def source_position(source: Mapping[str, Any]) -> str:
    """Read the place in the binary log; raises NoPositionError where there is none, ValueError for a number out of range."""
    return binlog_position(source, hint=_IN_INNODB)
