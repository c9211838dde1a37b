"""The form in which `changes` keeps records of tables with rules for columns: the changes that were decoded, and no other bytes.

One form for every envelope, so nothing that an envelope has beside the columns it was decoded to (before-images, keys, headers,
defaults in schema blocks, statements) can carry a value that must not travel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from schemas.changes import Change, Changes, Decoded, Reject
from schemas.records import Record
from transforms.context import DecodeContext
from transforms.envelopes.event import other_table
from transforms.positions.sequence import epoch_at
from transforms.values import exact_json
from transforms.values.rules import ruled_changes

HEADER = "ragstream.stored"
"""The header by which `changes` marks them. A record of a stream that has it is a reject: anybody could write one there."""
_EPOCH_DIGITS = 4
_FIELDS = {field.name: field.default for field in fields(Change)}


def encode(changes: Sequence[Change], context: DecodeContext) -> bytes:
    """The stored form of a record's changes, which are under the rules of their table already."""
    rules = context.tables[changes[-1].table].rules
    stands = sorted(name.casefold() for name, rule in rules.items() if rule != "drop")
    return exact_json.dumps({"stands": stands, "changes": [*map(_fields_of, changes)]}).encode()


def decode(record: Record, context: DecodeContext) -> Decoded:
    """The changes that `encode` kept, under the rules and the epochs of now.

    A column that was hashed or masked when it landed stays so, whatever its rule is now, unless it is dropped or masked.
    """
    document = exact_json.loads(record.value or b"")
    changes = tuple(_change(fields, context) for fields in document["changes"])
    name = changes[-1].table
    if name not in context.tables:
        return other_table(name, context)
    stands = frozenset(document["stands"])
    renamed = {here.casefold() for there, here in context.tables[name].renamed.items() if there.casefold() in stands}
    return ruled_changes(Changes(changes), context, stands | renamed)


def reserved_header() -> Reject:
    """Reject a record of a stream that has the header of stored ones."""
    return Reject("RESERVED_HEADER", f"the record has the header {HEADER}, which only the lake's own have")


def _fields_of(change: Change) -> dict[str, Any]:
    values = {name: getattr(change, name) for name in _FIELDS}
    return {name: value for name, value in values.items() if value not in ({}, (), _FIELDS[name])}


def _change(document: Mapping[str, Any], context: DecodeContext) -> Change:
    values = dict(document)
    epoch = epoch_at(context.epoch_starts_us, values.get("commit_time_us"))
    values["sequence"] = f"{epoch:04x}{values['sequence'][_EPOCH_DIGITS:]}"
    if (table := context.tables.get(values["table"])) is not None:
        values["columns"] = table.named(values.get("columns", {}))
        values["unavailable"] = [table.renamed.get(name, name) for name in values.get("unavailable", ())]
    values["unavailable"] = tuple(values.get("unavailable", ()))
    return Change(**values)
