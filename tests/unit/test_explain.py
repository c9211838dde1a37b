"""What `explain` says without a server: record envelope, outcome and form of file; and it writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from glue_jobs.cli.explain import explain
from lake.landing.batch import create_tables, schema_rows
from lake.layout import LakeLayout
from lake.storage import append_rows
from schemas.changes import SeenSchema

TABLE = {"table": "public.t", "keys": ["id"], "document": {"template": "{title}", "metadata": ["kind"]}}
RULED = {"table": "public.people", "keys": ["email"], "columns": {"email": "hash", "name": "drop"}}
METADATA = {
    "record-type": "data", "operation": "update", "schema-name": "public", "table-name": "t", "timestamp": "2026-03-01T10:00:01Z",
    "commit-timestamp": "2026-03-01T10:00:01Z", "stream-position": "00000002/7C007328.2.00000002/7C007328",
}  # fmt: skip
CANARY = "canary-e1"


def change(op: str, lsn: int, row: dict[str, Any] | None, table: str = "t") -> dict[str, Any]:
    source = {"schema": "public", "table": table, "sequence": f'["{lsn}","{lsn}"]', "ts_us": lsn, "name": "h"}
    return {"op": op, "before": row if op == "d" else None, "after": None if op == "d" else row, "source": source}


def recorded(offset: int, value: Any) -> str:
    line = {"topic": "h.public.t", "partition": 0, "offset": offset, "key": None, "value": value}
    return json.dumps(line | {"timestamp": 1, "headers": []})


def run(folder: Path, content: str, envelope: str = "debezium", **more: Any) -> Result:
    config, event = folder / "pipeline.json", folder / "event.json"
    source = {"type": "files", "format": "kafka", "envelope": envelope, "path": [str(event)]}
    tables = [TABLE, RULED]
    written = {
        "name": "p",
        "source": source,
        "tables": tables,
        "lake": {"path": str(folder / "lake")},
        "hash_key": "k" * 16,
    }
    config.write_text(json.dumps(written | {"checkpoint": str(folder / "checkpoint")} | more))
    event.write_text(content)
    before = sorted(folder.rglob("*"))
    result = CliRunner().invoke(explain, [str(config), "--event", str(event), "--json"])
    plain = CliRunner().invoke(explain, [str(config), "--event", str(event)])
    assert sorted(folder.rglob("*")) == before
    assert (result.exit_code, plain.exit_code) == (0, 0), result.output + plain.output + str(result.exception)
    return result


def steps(result: Result, record: int = 0) -> dict[str, dict[str, Any]]:
    return {step["part"]: step for step in json.loads(result.stdout)[record]["steps"]}


def test_one_event_as_it_is_in_the_stream_goes_through_every_step(tmp_path: Path) -> None:
    explained = steps(run(tmp_path, json.dumps(change("c", 7, {"id": 1, "title": "x"}), indent=2)))
    assert (explained["decode"]["outcome"], explained["decode"]["detail"]["key"]) == (
        "a change of public.t",
        '{"id":1}',
    )
    assert explained["landing"]["outcome"] == "a row of `changes`"
    assert explained["fold"]["outcome"] == "the row is new"
    assert explained["merge"]["detail"]["row"] == {"id": "1", "title": "x"}
    assert "stores" not in explained


def test_records_of_a_file_are_explained_after_those_before_them(tmp_path: Path) -> None:
    events = [
        change("c", 7, {"id": 1, "title": "x", "n": 1}), change("u", 9, {"id": 1, "title": "y", "n": 1}),
        change("u", 8, {"id": 1, "title": "late", "n": 1}), change("d", 10, {"id": 1}), change("u", 9, {"id": 1, "title": "y"}),
    ]  # fmt: skip
    result = run(tmp_path, "\n".join(recorded(at, event) for at, event in enumerate(events)))
    outcomes = [steps(result, at)["fold"]["outcome"] for at in range(5)]
    assert outcomes == ["the row is new", "the row changes", "nothing changes", "the row is gone", "nothing changes"]
    assert steps(result, 3)["merge"]["outcome"].startswith("no row in the table")


def test_rejects_and_ignored_records_say_why_and_go_no_further(tmp_path: Path) -> None:
    other = change("c", 1, {"id": 1}, "nobody")
    lines = [
        recorded(1, change("c", 7, {"title": "x"})),
        recorded(2, other).replace("h.public.t", "all"),
        recorded(3, None),
        recorded(4, {"no": "op"}),
    ]
    result = run(tmp_path, "\n".join(lines))
    assert [[step["outcome"] for step in record["steps"]] for record in json.loads(result.stdout)] == [
        ["reject NO_KEY", "a row of `rejects`: NO_KEY"], ["ignored", "counted as ignored"], ["ignored", "counted as ignored"],
        ["reject NOT_AN_ENVELOPE", "a row of `rejects`: NOT_AN_ENVELOPE"],
    ]  # fmt: skip


def test_a_dms_update_without_a_commit_position_is_explained(tmp_path: Path) -> None:
    explained = steps(run(tmp_path, json.dumps({"data": {"id": 1, "title": "x"}, "metadata": METADATA}), "dms"))
    assert explained["decode"]["detail"]["operation"] == "u"
    assert any("not the whole row" in why for why in explained["decode"]["why"])


def test_a_store_that_is_away_is_planned_as_empty_and_says_so(tmp_path: Path) -> None:
    model = {"type": "bedrock", "model": "amazon.titan-embed-text-v2:0", "dimensions": 512, "region": "eu-central-1"}
    sink = {"type": "pgvector", "dsn": "postgresql://me:secret@127.0.0.1:1/db", "table": "docs"}
    explained = steps(run(tmp_path, json.dumps(change("c", 7, {"id": 1, "title": "x"})), embedding=model, sinks=[sink]))
    store = explained["store pgvector"]
    assert store["outcome"] == "1 chunks: 1 added, 0 moved, 0 dropped"
    assert store["detail"]["documents"][0]["text"] == "x"
    assert any("cannot be asked" in why for why in store["why"])
    assert any("1 texts would be sent to the model" in why for why in store["why"])
    assert "secret" not in json.dumps(explained)


@pytest.mark.parametrize(("drift", "pending"), [("evolve", ["tier"]), ("ignore", None)])
def test_a_column_that_drift_leaves_out_is_not_pending(tmp_path: Path, drift: str, pending: list[str] | None) -> None:
    layout, columns = LakeLayout(str(tmp_path / "lake")), {"id": "int", "title": "text"}
    create_tables(layout)
    later = SeenSchema("2", "public.t", columns | {"tier": "text"}, sequence="f", defaulted=("tier",))
    append_rows(layout.path("schemas"), schema_rows("files", [SeenSchema("1", "public.t", columns), later]))
    event = json.dumps(change("c", 7, {"id": 1, "title": "x"}))
    explained = steps(run(tmp_path, event, tables=[TABLE | {"drift": drift}]))
    assert explained["merge"]["detail"]["pending"] == pending


def test_a_column_with_a_rule_is_not_shown(tmp_path: Path) -> None:
    result = run(tmp_path, json.dumps(change("c", 7, {"email": CANARY, "name": CANARY, "n": 1}, "people")))
    explained = steps(result)
    assert CANARY not in result.stdout
    assert "decoded columns alone" in explained["landing"]["why"][0]
    assert explained["decode"]["detail"]["columns"].keys() == {"email", "n"}
