"""Decoding against `orjson.loads` of the same events, in events a second by envelope, form and engine: `make bench-decode`.

The events are the recorded ones; flattened, outbox and DMS records are made of them or by hand. Each kind is decoded and parsed
in turn, in one process; the figures are medians, the ratio is that of a round. An Avro value is held against orjson's reading
of the JSON converter's record of the same event, without its schema block; so is a record with the block.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from schemas.changes import Changes, Decoded
from schemas.records import Record
from tests.recorded import CONTEXT, compact, records
from tests.registered import Known, as_registered
from transforms.context import DecodeContext, TableContext
from transforms.envelopes.decode import coordinates, decode

ENGINES = {
    "postgresql": "pg15", "mariadb": "mariadb1011", "sqlserver": "sqlserver_string", "oracle": "oracle_string",
}  # fmt: skip
OUTBOX = "outbox.event.item"
DMS = {
    "data": {"id": 7, "title": "VPN policy", "body": "call the desk before you travel " * 12, "price": 12.5, "open": "true"},
    "metadata": {
        "timestamp": "2026-11-28T10:00:00.123456Z", "record-type": "data", "operation": "update",
        "schema-name": "public", "table-name": "docs", "transaction-id": 7, "commit-timestamp": "2026-11-28T10:00:00.123456Z",
        "stream-position": "000000a1/0000b2c8.4.000000a1/0000b2c8", "prev-transaction-id": 6, "prev-transaction-record-id": 1,
    },
    "before-image": {"id": 7},
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Events of one envelope, form and engine, and the JSON that orjson reads of each."""

    name: str
    context: DecodeContext
    read: Sequence[Record]
    plain: Sequence[bytes]


def kinds() -> Iterator[Kind]:
    """Everything that is measured."""
    for engine, recording in ENGINES.items():
        blocks = [r for r in records(f"{recording}_schemas") if _is_row(decode(r, CONTEXT))]
        payloads = [json.loads(r.value or b"")["payload"] for r in blocks]
        plain = [orjson.dumps(payload) for payload in payloads]
        bare = [record._replace(value=value) for record, value in zip(blocks, plain, strict=True)]
        yield Kind(f"debezium, JSON, {engine}", CONTEXT, bare, plain)
        yield Kind(f"debezium, JSON with its schema, {engine}", CONTEXT, blocks, plain)
        for form, kind in (("AVRO", "confluent"), ("AVRO", "glue"), ("JSON", "confluent")):
            registry = Known(kind)  # type: ignore[arg-type] # one of the two
            framed = [as_registered(record, form, registry.kind, registry.register) for record in blocks]
            name = f"debezium, {form}, {kind}{', zlib' if kind == 'glue' else ''}, {engine}"
            yield Kind(name, replace(CONTEXT, registry=registry), framed, plain)
        rows = [_flattened(payload) for payload in payloads]
        flat = [record._replace(value=row) for record, row in zip(blocks, rows, strict=True)]
        yield Kind(f"flattened, JSON, {engine}", replace(CONTEXT, envelope="flattened"), flat, rows)
    events = [compact(DMS | {"data": DMS["data"] | {"id": number}}) or b"" for number in range(100)]  # type: ignore[operator]
    context = DecodeContext("dms", {"public.docs": TableContext("public.docs", ("id",))})
    yield Kind("dms, JSON, postgresql", context, _numbered("docs", events), events)
    payloads = [orjson.dumps(DMS["data"]) for _ in range(100)]
    context = DecodeContext("outbox", {OUTBOX: TableContext(OUTBOX, ("id",))})
    yield Kind("outbox, JSON", context, _numbered(OUTBOX, payloads), payloads)


def _is_row(meaning: Decoded) -> bool:
    """Whether a record is the change of a row: flattening drops TRUNCATE."""
    return isinstance(meaning, Changes) and meaning.changes[-1].op != "t"


def _numbered(stream: str, values: Sequence[bytes]) -> list[Record]:
    return [Record(stream, "0", str(number), str(number).encode(), value) for number, value in enumerate(values)]


def _flattened(payload: dict[str, Any]) -> bytes:
    fields = {f"__source_{name}": value for name, value in payload["source"].items()}
    gone = payload["op"] == "d"
    return orjson.dumps(
        payload["before" if gone else "after"] | {"__op": payload["op"], "__deleted": str(gone).lower()} | fields
    )


def per_second(read: Callable[[], object], events: int, seconds: float) -> float:
    """Events a second of a function that reads all of them."""
    done, began = 0, time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        read()
        done += events
    return done / took


def measured(kind: Kind, rounds: int, seconds: float) -> dict[str, Any]:
    """The figures of one kind; every event must be a change."""

    def decoded() -> int:
        return sum(isinstance(decode(record, kind.context), Changes) for record in kind.read)

    def coordinated() -> int:
        return sum(coordinates(r.value or b"", r.stream, r.position, kind.context) is not None for r in kind.read)

    if decoded() != len(kind.read):
        raise AssertionError(f"{kind.name}: {len(kind.read) - decoded()} records are no changes")
    count = len(kind.read)
    pairs = [
        (
            per_second(decoded, count, seconds),
            per_second(lambda: [orjson.loads(value) for value in kind.plain], count, seconds),
        )
        for _ in range(rounds)
    ]
    figures = {
        "decoded": round(statistics.median(one for one, _ in pairs)),
        "orjson": round(statistics.median(other for _, other in pairs)),
        "ratio": round(statistics.median(one / other for one, other in pairs), 3),
        "bytes": round(statistics.mean(len(record.value or b"") for record in kind.read)),
    }
    if coordinated() == count:
        figures["coordinates"] = round(per_second(coordinated, count, seconds))
    return figures


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.3)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    figures = {kind.name: measured(kind, options.rounds, options.seconds) for kind in kinds()}
    versions = {name: importlib.metadata.version(name) for name in ("orjson", "fastavro")}
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": round(load, 2)}
    print(json.dumps({"benchmark": "decode", "figures": figures, **machine, "versions": versions}))


if __name__ == "__main__":
    main()
