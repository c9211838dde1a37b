"""What the registries' own converters wrote of recorded events means what the JSON converter's record of them means."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from schemas.changes import Changes
from schemas.records import Record
from tests.recorded import CONTEXT, FIXTURES, compact, records
from tests.registered import Known
from transforms.context import DecodeContext
from transforms.envelopes.decode import decode, seen_schema
from transforms.envelopes.registry import RegisteredSchema, RegistryKind, schema_names

FOLDER = FIXTURES.parent / "registry"


def lines(name: str) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, (FOLDER / f"{name}.jsonl").read_text().splitlines())


@cache
def originals(recording: str) -> dict[tuple[str, str, str], Record]:
    return {(r.stream, r.partition, r.position): r for r in records(recording)}


def written(name: str) -> Iterator[tuple[Record, Record]]:
    """An event as the JSON converter wrote it, and as the registry's did."""
    for line in lines(name):
        place = (line["topic"], str(line["partition"]), str(line["offset"]))
        made = line.get("made")
        original = (
            Record(*place, compact(made["key"]), compact(made["value"]))
            if made
            else originals(line["recording"])[place]
        )
        key, value = (None if line[part] is None else base64.b64decode(line[part]) for part in ("key", "value"))
        yield original, original._replace(key=key or original.key, value=value or original.value)


def unordered(record: Record, context: DecodeContext) -> tuple[str, dict[str, str], set[str], set[str]]:
    """What its schema announces, and in no order: AWS's JSON Schema has another than the struct."""
    seen = seen_schema(record, context)
    assert seen is not None
    return seen.table, dict(seen.columns), set(seen.keys), set(seen.defaulted)


@pytest.mark.parametrize(
    ("name", "kind"), [("glue_avro", "glue"), ("glue_json_schema", "glue"), ("confluent_avro", "confluent")]
)
def test_what_a_registrys_own_converter_wrote_means_the_same(name: str, kind: RegistryKind) -> None:
    schemas = {s["id"]: RegisteredSchema(s["format"], s["definition"]) for s in lines(f"{name}_schemas")}
    context = replace(CONTEXT, registry=Known(kind, schemas))
    named, lost, changes = set[str](), 0, 0
    for original, other in written(name):
        named.update(schema_names(kind, (other.key, other.value)))
        expected, meaning = decode(original, CONTEXT), decode(other, context)
        if not isinstance(expected, Changes):
            assert meaning == expected
            continue
        assert isinstance(meaning, Changes), meaning
        assert unordered(other, context) == unordered(original, CONTEXT)
        for one, two in zip(expected.changes, meaning.changes, strict=True):
            changes += 1
            filled = {n for n, value in one.columns.items() if value is None and two.columns[n] is not None}
            lost += len(filled)
            assert replace(two, columns={**two.columns, **dict.fromkeys(filled)}) == one
    assert named == schemas.keys()
    assert changes >= 28
    assert bool(lost) == (kind == "glue"), "AWS's converters write a column's default in place of NULL"
