"""What decoding needs to know of the configuration, and how it names rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transforms import exact_json
from transforms.types import Convert, converter


@dataclass(frozen=True)
class TableContext:
    """What decoding needs to know of one table: its name at the source, its keys, the types its owner declared."""

    table: str
    keys: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def converters(self) -> dict[str, Convert]:
        """By column: what makes values of the declared types canonical, where they came without their schema."""
        return {name: convert for name, kind in self.columns.items() if (convert := converter(kind))}


@dataclass(frozen=True)
class DecodeContext:
    """What decoding needs to know of one source. Plain data: it travels to executors and to a Lambda."""

    envelope: Literal["debezium", "dms"]
    tables: Mapping[str, TableContext]
    others: frozenset[str] = frozenset()
    """Tables that another source of this pipeline owns: their records are rejects here."""
    epoch_starts_us: tuple[int, ...] = ()
    unavailable_value: str = "__debezium_unavailable_value"
    ignored: frozenset[str] = frozenset()
    """Tables that carry no rows of the pipeline: the signal and heartbeat tables of the capture."""


def key_text(keys: Sequence[str], row: Mapping[str, Any]) -> str | None:
    """Render the key columns as one JSON object, in the table's own order; None when one is missing or NULL."""
    values = {name: row.get(name) for name in keys}
    return None if None in values.values() else exact_json.dumps(values)
