"""load_warehouse on the Redshift stand-in: any cut and order of `changes` leaves the source's rows."""

from __future__ import annotations

import base64
import datetime as dt
import json
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from itertools import batched
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pyspark.sql import SparkSession

from glue_jobs.config.pipeline import PipelineConfig
from glue_jobs.operations.explain import explain
from local_stack.faults.tcp import FaultProxy
from local_stack.servers.aws import Ministack
from local_stack.standins.redshift.server import Redshift
from schemas.errors import ConfigurationError, UnavailableError
from schemas.ownership import Owner
from schemas.records import Record
from schemas.tables import TableConfig
from tests.history import TABLE, ModelTable, as_record, random_history
from tests.lake_fixtures import transaction
from tests.warehouse_fixtures import OWNER, Loaded, warehouse_config
from transforms.values import exact_json
from warehouse.checks import check
from warehouse.clients import WireClient
from warehouse.config import RedshiftConfig
from warehouse.loader import prepare
from warehouse.sql import Registry

TEXTS = {"id": "int", "a": "text", "body": "text"}


@pytest.fixture
def make(spark: SparkSession, tmp_path: Path, warehouse_dsn: str, aws: Ministack) -> Callable[[str], Loaded]:
    return lambda table: Loaded(spark, tmp_path, warehouse_dsn, aws, table)


def rows_of(table: ModelTable) -> list[dict[str, object]]:
    return [dict(table.rows[number]) for number in sorted(table.rows, key=str)]


def record(op: str, lsn: int, row: Mapping[str, Any]) -> Record:
    """A Debezium record of `inv.t` without its schema, at a position of the source's log."""
    source = {"schema": "inv", "table": "t", "sequence": f'["{lsn}","{lsn}"]', "ts_us": lsn}
    value = {"op": op, "before": row if op == "d" else None, "after": row if op != "d" else None, "source": source}
    return Record("t", "0", str(lsn), None, exact_json.dumps(value).encode())


def test_halves_of_key_change_bring_an_untold_column_along_in_either_order(make: Callable[[str], Loaded]) -> None:
    table, loaded = ModelTable(), make(TABLE)
    table.insert(1, "x")
    table.move(1, 2)
    table.insert(3, "y")
    table.move(3, 4)
    records = [as_record(change) for change in table.changes]
    loaded.declare(TEXTS)
    loaded.land(records)
    first, second = records[1], records[5]
    loaded.load([records[0].position, records[3].position])
    loaded.load([first.position, second.position])
    loaded.load([record.position for record in records if record not in {first, second}])
    assert loaded.rows() == rows_of(table)
    assert [row["body"] for row in loaded.rows()] == ["body x", "body y"]


VALUES: dict[str, tuple[str, Any, Any]] = {
    "flag": ("boolean", True, True),
    "small": ("smallint", -3, -3),
    "big": ("bigint", 2**62, 2**62),
    "price": ("decimal(10,2)", "12345678.90", Decimal("12345678.90")),
    "exact": ("numeric", "0.10", "0.10"),
    "ratio": ("double", "1.5", 1.5),
    "not_finite": ("double", "NaN", "nan"),
    "text": ("text", "tab\tnew\nline \\ é ☃ 'quoted'", "tab\tnew\nline \\ é ☃ 'quoted'"),
    "raw": ("bytes", base64.b64encode(b"\x00\\\xff").decode(), b"\x00\\\xff"),
    "day": ("date", "2024-02-29", dt.date(2024, 2, 29)),
    "at": ("timestamp", "2024-02-29T12:30:00.123456", dt.datetime(2024, 2, 29, 12, 30, 0, 123456)),  # noqa: DTZ001
    "seen": ("timestamptz", "2024-02-29T12:30:00+02:00", dt.datetime(2024, 2, 29, 10, 30, tzinfo=dt.UTC)),
    "doc": ("json", '{"n": 1.10, "big": 12345678901234567890, "s": "é"}', {"n": 1.1, "big": 12345678901234567890, "s": "é"}),
    "nul": ("json", '{"s": "a\\u0000b", "esc": "\\\\u0000"}', {"s": "a\ufffdb", "esc": "\\u0000"}),
    "tags": ("array<text>", ["a", None, "ü"], ["a", None, "ü"]),
    "Mixed Case": ("uuid", "6f1c", "6f1c"),
    "_key": ("text", "theirs", "theirs"),
    "nothing": ("json", None, None),
}  # fmt: skip


def test_a_value_that_fits_no_redshift_type_rejects_and_its_row_stands(
    make: Callable[[str], Loaded],
) -> None:
    loaded = make("inv.t")
    loaded.declare({"id": "int"} | {name: kind for name, (kind, _, _) in VALUES.items()} | {"wide": "decimal(50,2)"})
    whole = {"id": 1} | {name: value for name, (_, value, _) in VALUES.items()} | {"wide": "1.25"}
    unfit = {
        "id": 2, "text": "é" * 40_000, "doc": json.dumps({"s": "x" * 70_000}), "wide": "9" * 40, "day": "infinity",
        "price": "1.234", "small": 7, "nul": '{"n": 1e400}',
    }  # fmt: skip
    loaded.land([record("c", 1, whole), record("c", 2, unfit)])
    assert loaded.load().rejects == 6
    assert loaded.load(again=True).rejects == 0
    first, second = loaded.rows()
    names = {"Mixed Case": "mixed case", "_key": "_key_2"}
    assert {name: first[names.get(name, name)] for name in VALUES if name != "not_finite"} == {
        name: value for name, (_, _, value) in VALUES.items() if name != "not_finite"
    }
    assert str(first["not_finite"]) == "nan"
    assert (first["wide"], second["wide"], second["small"], second["text"]) == (Decimal("1.25"), None, 7, None)
    rejects = {(row["stage"], row["condition"], row["column"]) for row in loaded.rejects()}
    assert rejects == {("warehouse", "CAST_FAILED", name) for name in ("text", "doc", "wide", "day", "price", "nul")}
    assert not [row for row in loaded.rejects() if "é" in row["message"] or row["value"]]


def test_table_follows_new_columns_and_wider_types_and_keeps_what_it_holds(make: Callable[[str], Loaded]) -> None:
    loaded = make("inv.t")
    loaded.declare({"id": "int", "n": "int", "at": "timestamp"})
    loaded.land([
        record("c", 1, {"id": 1, "n": 7, "at": "2024-02-29T01:02:03"}),
        record("c", 2, {"id": 2, "n": None, "at": None, "seen late": "x"}),
    ])  # fmt: skip
    loaded.load()
    loaded.declare({"id": "int", "n": "decimal(20,2)", "at": "text", "more": "json"})
    untold = {"seen late": "__debezium_unavailable_value"}
    loaded.land([record("u", 3, {"id": 2, "n": "12345678901.25", "at": None, "more": '{"a":1}'} | untold)])
    loaded.load(["3"])
    assert loaded.rows() == [
        {"id": 1, "n": Decimal("7.00"), "at": "2024-02-29T01:02:03", "seen late": None, "more": None},
        {"id": 2, "n": Decimal("12345678901.25"), "at": None, "seen late": "x", "more": {"a": 1}},
    ]
    loaded.declare({"id": "int", "n": "int", "at": "timestamp"})  # an older driver: nothing gets narrower
    again = loaded.load()
    assert (again.written, again.deleted) == (0, 0)
    assert [row["n"] for row in loaded.rows()] == [Decimal("7.00"), Decimal("12345678901.25")]


def explained(loaded: Loaded, *records: Record, **warehouse: Any) -> list[tuple[str, str]]:
    """Outcome and reasons of the warehouse's step, by record."""
    path = str(Path(loaded.layout.root) / "none")
    config = PipelineConfig.model_validate({
        "name": "desk", "lake": {"path": loaded.layout.root}, "checkpoint": path,
        "source": {"type": "files", "name": "desk", "format": "kafka", "envelope": "debezium", "path": [path]},
        "tables": [{"table": loaded.table, "keys": ["id"], "columns": {"id": "int", "a": "text"}}],
        "warehouse": warehouse_config(loaded.dsn, loaded.aws, **warehouse),
    })  # fmt: skip
    steps = [{step.part: step for step in result.steps}["warehouse"] for result in explain(config, "desk", records)]
    return [(step.outcome, "; ".join(step.why)) for step in steps]


def test_explain_says_what_a_record_does_to_the_warehouse_as_it_is(make: Callable[[str], Loaded]) -> None:
    loaded = make("inv.t")
    first, second = record("c", 1, {"id": 1, "a": "old"}), record("u", 2, {"id": 1, "a": "newer"})
    gone, other = record("d", 3, {"id": 1}), record("c", 4, {"id": 2, "a": "b", "more": "x"})
    loaded.declare({"id": "int", "a": "text"})
    loaded.land([first, second])
    assert explained(loaded, first) == [("the row is new", "the first load creates the table")]
    loaded.load(["1"])
    staged, rows = loaded.staged(), loaded.rows()
    outcomes, whys = zip(*explained(loaded, first, second, gone, other, first), strict=True)
    assert outcomes == ("nothing", "the row is replaced", "the row becomes a tombstone", "the row is new", "nothing")
    assert whys[1:4] == (
        *["by the row's state in the warehouse"] * 2,
        "by the row's state in the warehouse; the table gets more",
    )
    ((outcome, why),) = explained(loaded, gone, port=1)
    assert (outcome, "cannot be asked" in why, "does not answer" in why) == ("the row becomes a tombstone", True, True)
    assert (loaded.staged(), loaded.rows()) == (staged, rows)


def test_of_two_drivers_at_once_the_second_folds_anew(
    make: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = make("inv.t")
    one, other = loaded.declare({"id": "int", "a": "text"}), loaded.declare({"id": "int", "a": "text", "b": "text"})
    loaded.land([
        record("c", 1, {"id": 1, "a": "old"}), record("u", 2, {"id": 1, "a": "newest", "b": "told"}),
        record("c", 3, {"id": 2, "a": "new row"}),
    ])  # fmt: skip
    newer, older = loaded.batch(["2", "3"]), loaded.batch(["1"])
    run, others = WireClient.run, [lambda: other.load(newer, "other/1", transaction("other", 1))]

    def after_another(self: WireClient, statements: Sequence[str]) -> Any:
        if others and "COPY ragstream_stage" in "".join(statements):
            others.pop()()
        return run(self, statements)

    monkeypatch.setattr(WireClient, "run", after_another)
    one.load(older, "one/1", transaction("one", 1))
    assert others == []
    assert loaded.rows() == [{"id": 1, "a": "newest", "b": "told"}, {"id": 2, "a": "new row", "b": None}]


def test_drivers_that_load_at_the_same_time_leave_what_one_would(make: Callable[[str], Loaded]) -> None:
    table, loaded = random_history(7, 60), make(TABLE)
    for number in range(100, 110):
        table.insert(number, "kept")
        table.update_a(number, "edited")
    records = [as_record(change) for change in table.changes]
    drivers = {seed: loaded.declare(TEXTS) for seed in (1, 2)}
    loaded.land(records)

    def load(seed: int) -> None:
        positions = [record.position for record in records]
        random.Random(seed).shuffle(positions)
        for at, some in enumerate(batched(positions, -(-len(positions) // 3))):
            drivers[seed].load(loaded.batch(some), f"driver-{seed}/{at}", transaction(f"driver-{seed}", at))

    with ThreadPoolExecutor(len(drivers)) as pool:
        list(pool.map(load, drivers))
    assert loaded.rows() == rows_of(table)
    with psycopg.connect(loaded.dsn) as connection:
        duplicates = connection.execute("SELECT count(*) - count(DISTINCT _key) FROM desk.t__rows").fetchone()
    assert duplicates == (0,)


def test_a_connection_that_breaks_is_waited_for_and_opened_anew(
    warehouse_dsn: str, aws: Ministack, redshift: Redshift, new_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = new_proxy(redshift.port)
    client = WireClient(RedshiftConfig.model_validate(warehouse_config(warehouse_dsn, aws, port=proxy.port)))
    assert client.run(["SELECT 1"]) == [(1,)]
    proxy.drop()
    with pytest.raises(UnavailableError):
        client.run(["SELECT 1"])
    assert client.run(["SELECT 2"]) == [(2,)]
    proxy.refuse()
    with pytest.raises(UnavailableError, match="does not answer"):
        client.run(["SELECT 1"])
    proxy.heal()
    assert client.run(["SELECT 1", "CREATE TEMP TABLE t (a INTEGER)", "DROP TABLE t"]) == [(1,)]
    client.close()


def test_a_schema_is_one_pipelines_until_another_adopts_it(make: Callable[[str], Loaded], warehouse_dsn: str) -> None:
    other, mine = Owner("shop", "lake-of-shop"), make(TABLE)
    client = WireClient(mine.config)
    prepare(client, Registry("desk"))
    with psycopg.connect(warehouse_dsn, autocommit=True) as admin:
        admin.execute("DROP TABLE desk.ragstream_owner")  # a schema from before
    for _ in range(2):
        mine.declare(TEXTS)
    tables = [TableConfig(table=TABLE, keys=("id",))]
    check(mine.config, tables, OWNER)
    for refused in (lambda: check(mine.config, tables, other), lambda: make(TABLE).declare(TEXTS, owner=other)):
        with pytest.raises(ConfigurationError, match="schema desk belongs to pipeline desk") as raised:
            refused()
        assert (raised.value.condition, raised.value.exit_status) == ("OTHER_PIPELINE", 2)
    client.close()


def test_check_says_where_what_and_how_to_mend_it(warehouse_dsn: str, aws: Ministack) -> None:
    section = warehouse_config(warehouse_dsn, aws)
    tables = [TableConfig(table="public.t", keys=("id",)), TableConfig(table="inv.T", keys=("id",))]
    check(RedshiftConfig.model_validate(section), tables[:1], OWNER)
    with psycopg.connect(warehouse_dsn, autocommit=True) as admin:
        admin.execute("CREATE USER reader PASSWORD 'reads'")
        wrong: list[tuple[dict[str, Any], Sequence[TableConfig], str]] = [
            ({"password": "other"}, tables[:1], "LOGIN_REFUSED"),
            ({"user": "reader", "password": "reads"}, tables[:1], "MISSING_RIGHTS"),
            ({"staging": "s3://no-such-bucket/x"}, tables[:1], "STAGING_REFUSED"),
            ({}, tables, "WAREHOUSE_NAME_TAKEN"),
        ]
        for change, chosen, condition in wrong:
            with pytest.raises(ConfigurationError) as raised:
                check(RedshiftConfig.model_validate(section | change), chosen, OWNER)
            assert (raised.value.condition, bool(raised.value.hint)) == (condition, True)
            assert "other" not in str(raised.value) or condition == "WAREHOUSE_NAME_TAKEN"
        admin.execute("DROP USER reader")
    with pytest.raises(UnavailableError, match="does not answer"):
        check(RedshiftConfig.model_validate(section | {"port": 1}), tables[:1], OWNER)


def test_a_table_that_is_somebody_elses_is_left_alone(make: Callable[[str], Loaded], warehouse_dsn: str) -> None:
    loaded = make("inv.t")
    loaded.declare({"id": "int"})
    with psycopg.connect(warehouse_dsn, autocommit=True) as admin:
        admin.execute("CREATE TABLE desk.t (id int)")
    loaded.land([record("c", 1, {"id": 1})])
    with pytest.raises(ConfigurationError) as raised:
        loaded.load()
    assert raised.value.condition == "TABLE_TAKEN"
    loaded.config = loaded.config.model_copy(update={"names": {"inv.t": "other"}})
    loaded.declare({"id": "int"})
    loaded.load()
    loaded.config = loaded.config.model_copy(update={"names": {"inv.t": "third"}})
    loaded.declare({"id": "int"})
    with pytest.raises(ConfigurationError) as raised:
        loaded.load()
    assert raised.value.condition == "WAREHOUSE_NAME_CHANGED"
