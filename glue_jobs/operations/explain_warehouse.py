"""What changes would do in the warehouse, by the states that its rows have and the fold of every load."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from glue_jobs.operations.explained import Step
from lake.tables.shape import TableShape
from schemas.errors import PipelineError
from warehouse.clients import open_client
from warehouse.folding import Folded, LoadSettings, fold_group
from warehouse.shape import evolved, names_of, registered, retyped
from warehouse.sql import REGISTERS, Registry, TableStatements
from warehouse.staging import staging
from warehouse.states import key_moves_of

if TYPE_CHECKING:
    from lake.tables.observed_types import ObservedTypes
    from schemas.tables import TableConfig
    from transforms.context import DecodeContext
    from warehouse.config import RedshiftConfig

type Row = dict[str, Any]
type Stored = tuple[TableShape, str, list[Row]]
"""A table's shape and newest TRUNCATE, and the states of rows as a load reads them."""

_SECONDS = 30.0
"""How long the warehouse may take for the states of a record's rows."""


class WarehouseSteps:
    """The steps of the warehouse."""

    def __init__(
        self, config: RedshiftConfig, tables: Sequence[TableConfig], contexts: Mapping[str, DecodeContext]
    ) -> None:
        """Connect to nothing yet."""
        self._registry, self._names = Registry(config.schema_name), names_of(tables, config)
        self._client, self._writer, self._contexts = open_client(config), staging(config, "explain"), contexts

    def step(
        self,
        table: TableConfig,
        observed: ObservedTypes,
        columns: Iterable[str],
        rows: tuple[Sequence[Row], Sequence[Row], Row],
        key: str,
        truncated: str,
    ) -> Step:
        """What a record would do to one row; `rows` of `changes`: those that landed, of the records before it, and its own."""
        landed, earlier, row = rows
        try:
            current, known_truncation, stored = self._stored(table, {key, row["_key"], row["_related_key"]} - {None})
            why = ["by the row's state in the warehouse" if current.columns else "the first load creates the table"]
        except PipelineError as error:
            current, known_truncation, stored, earlier = TableShape(), "", [], [*landed, *earlier]
            why = [f"as if the warehouse held what the lake holds, since it cannot be asked: {error.message}"]
        target = evolved(current, table, observed, columns)
        truncated = max(truncated, known_truncation)
        settings = LoadSettings.of(table, observed, self._contexts, target, truncated, self._writer)
        before, folded = (_folded([*stored, *records], key, settings) for records in (earlier, [*earlier, row]))
        if folded is None or (before and (before.row, before.rejects) == (folded.row, folded.rejects)):
            return Step("warehouse", "nothing", (*why, "the row has all of it"), {"key": key})
        why += _altered(current, target) if current.columns else []
        why += [f"{reject['condition']}: {reject['message']}" for reject in folded.rejects]
        return Step("warehouse", _outcome(folded, before), tuple(why), {"key": key})

    def _stored(self, table: TableConfig, keys: set[str]) -> Stored:
        """What the warehouse has of rows, and of those that took values along from them; it is asked, and nothing staged."""
        if not {name for _, name in self._client.run([self._registry.find()])} >= REGISTERS:
            return TableShape(), "", []
        statements = TableStatements(self._registry, table.table, self._names[table.table])
        known = self._client.run([statements.known()])
        states: dict[str, Row] = {}
        missing = keys if known else set[str]()
        while missing:
            named = {f"key_{at}": key for at, key in enumerate(sorted(missing))}
            read = self._client.query(statements.states(list(named)), named, _SECONDS).rows
            states |= {
                str(key): {"_key": str(key), "_revision": int(n), "_state": str(state)} for key, n, state in read
            }
            keys |= missing
            missing = {to for row in states.values() for to in key_moves_of(row["_state"]).values()} - keys
        truncated = str(known[0][4] or "") if known else ""
        return registered(known), truncated, list(states.values())

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _folded(rows: Sequence[Row], key: str, settings: LoadSettings) -> Folded | None:
    """What a load would write of one row."""
    folded = fold_group([{"_state": None} | row for row in rows], settings)
    return next((one for one in folded if (one.row or one.rejects[0])["_key"] == key), None)


def _outcome(folded: Folded, before: Folded | None) -> str:
    if folded.row is None:
        return "a reject"
    if not folded.row["_live"]:
        return "the row becomes a tombstone"
    return "the row is replaced" if folded.row["_base_revision"] or before else "the row is new"


def _altered(current: TableShape, target: TableShape) -> list[str]:
    """What a load does first to the table."""
    added = [column.name for column in target.columns[len(current.columns) :]]
    types = [f"{after.name} {after.kind}" for _, after in retyped(current, target)]
    parts = (("the table gets", added), ("the table gets wider types:", types))
    return [f"{words} {', '.join(names)}" for words, names in parts if names]
