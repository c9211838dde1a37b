"""Values that must not travel: dropped, hashed or masked before anything is written. Pure.

A hash is HMAC-SHA-256 (RFC 2104) of the canonical value's text under the pipeline's key, in hexadecimal: equal values of any
column, table and engine have equal hashes, and without the key nobody can try values out. A mask has one length, whatever it
stands for. NULL stays NULL under both.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from schemas.changes import Change, Changes, Decoded, Ignored, Reject, SeenSchema
from transforms.context import is_topic_of
from transforms.values import exact_json

if TYPE_CHECKING:
    from transforms.context import DecodeContext, TableContext

MASK = "****"


def ruled(meaning: Decoded, context: DecodeContext) -> Decoded:
    """The meaning of a stream's record under the rules of its table."""
    if isinstance(meaning, Changes):
        return ruled_changes(meaning, context)
    if isinstance(meaning, Ignored) and meaning.schema:
        return replace(meaning, schema=ruled_schema(meaning.schema, context))
    return meaning


def ruled_changes(meaning: Changes, context: DecodeContext, stands: Collection[str] | None = None) -> Changes:
    """Changes under the rules of their table; of stored ones, `stands` are the columns that were hashed or masked before.

    Those, with their names' case folded, stay as they are under `hash`; the name of a stored one's schema stays too.
    """
    table = context.tables.get(meaning.changes[-1].table)
    if table is None or not table.rules:
        return meaning
    ruling = _Ruling(table, context.hash_key, stands)
    unfit = tuple(
        replace(reject, key=ruling.key_of(reject.key))
        for reject in meaning.unfit
        if table.rule_of(reject.column or "") != "drop"
    )
    return Changes(tuple(map(ruling.change, meaning.changes)), unfit, meaning.at_lob_limit)


@dataclass(frozen=True)
class _Ruling:
    """The rules of one table, for changes of a stream (`stands` is None) or stored ones."""

    table: TableContext
    key: bytes
    stands: Collection[str] | None

    def change(self, change: Change) -> Change:
        table, schema_id = self.table, change.schema_id
        kept = {name: value for name, value in change.columns.items() if table.rule_of(name) != "drop"}
        return replace(
            change,
            key=self.key_of(change.key) or "",
            columns={name: self._value(name, value) for name, value in kept.items()},
            unavailable=tuple(name for name in change.unavailable if table.rule_of(name) != "drop"),
            old_key=self.key_of(change.old_key),
            new_key=self.key_of(change.new_key),
            schema_id=ruled_id(schema_id, table) if schema_id and self.stands is None else schema_id,
        )

    def key_of(self, text: str | None) -> str | None:
        """A key's text; its columns have no other rule than `hash` (`schemas.tables`)."""
        if not text or not any(map(self.table.rule_of, self.table.keys)):
            return text
        return exact_json.dumps({name: self._value(name, value) for name, value in exact_json.loads(text).items()})

    def _value(self, name: str, value: Any) -> Any:
        rule = self.table.rule_of(name)
        if rule is None or value is None or (rule == "hash" and name.casefold() in (self.stands or ())):
            return value
        return hashed(value, self.key) if rule == "hash" else MASK


def hashed(value: Any, key: bytes) -> str:
    """The keyed hash of a canonical value: of text itself, of any other value as JSON."""
    text = value if isinstance(value, str) else exact_json.dumps(value)
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256").hex()


def ruled_schema(schema: SeenSchema, context: DecodeContext) -> SeenSchema:
    """The announced types of a table under its rules; a dropped column keeps its name alone, so that `check` knows it."""
    table = context.tables.get(schema.table)
    if table is None or not table.rules:
        return schema
    kinds: Mapping[str | None, str] = {"drop": "any", "hash": "text", "mask": "text"}
    rules = {name: table.rule_of(table.renamed.get(name, name)) for name in schema.columns}
    columns = {name: kinds.get(rules[name], kind) for name, kind in schema.columns.items()}
    defaulted = tuple(name for name in schema.defaulted if table.rule_of(name) != "drop")
    return replace(schema, schema_id=ruled_id(schema.schema_id, table), columns=columns, defaulted=defaulted)


def ruled_id(schema_id: str, table: TableContext) -> str:
    """The name of an announced schema under a table's rules: other rules, another name."""
    rules = exact_json.dumps(dict(table.rules), sort_keys=True)
    return hashlib.sha256(f"{schema_id}\0{rules}".encode()).hexdigest()[:16]


def may_keep_bytes(reject: Reject, stream: str, context: DecodeContext) -> bool:
    """Whether the bytes of a rejected record may be kept: not where its table has rules.

    Where the table is not known, none that the stream may carry may have any: of a topic that Debezium named after a table
    that one, else all tables of the pipeline.
    """
    if not context.ruled:
        return True
    if reject.table:
        table = context.table(reject.table, stream)
        if table is not None:
            return not table.rules
        if reject.table in context.others:
            return reject.table not in context.ruled
    names = {*context.tables, *context.others, *context.ruled}
    named = {name for name in names if is_topic_of(stream, name)} if context.envelope == "debezium" else set()
    return context.ruled.isdisjoint(named or names)
