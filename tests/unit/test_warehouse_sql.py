"""Every statement the warehouse is told parses as Redshift SQL, and says what it should."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import sqlglot
from sqlglot import exp

from lake.tables.observed_types import ObservedTypes
from lake.tables.shape import ColumnShape, TableShape
from schemas.ownership import Owner
from schemas.tables import TableConfig
from warehouse.shape import evolved, plain, registered, steps
from warehouse.sql import Copies, Load, Registry, TableStatements, literal, probe

REGISTRY = Registry("desk")
COPIES = Copies("arn:aws:iam::123456789012:role/redshift-staging")
TABLE = TableStatements(REGISTRY, 'inv."Odd" % ключ', 'odd "t" % ключ')
TYPES = {
    "id": "bigint", "flag": "boolean", "n": "int", "s": "smallint", "r": "real", "d": "double", "price": "decimal(10,2)",
    "wide": "decimal(50,3)", "any": "numeric", "t": "text", "b": "bytes", "day": "date", "at": "timestamp",
    "seen": "timestamptz", "doc": "json", "tags": "array<text>", "Mixed Case": "uuid", "ctid": "text", "%s": "interval",
}  # fmt: skip
SHAPE = evolved(TableShape(), TableConfig(table="inv.t", keys=("id",), columns=TYPES), ObservedTypes())
MANIFEST = "s3://bucket/prefix/query/1/table/0123.manifest"
WIDENINGS = [("int", "bigint"), ("bigint", "decimal(20,2)"), ("float", "double")] + [
    (kind, "string") for kind in ("boolean", "binary", "date", "timestamp", "timestamp_ntz", "super", "double", "int")
]


def load(*, rows: str | None = MANIFEST, pieces: str | None = MANIFEST, truncated: str = "") -> Load:
    return Load(COPIES, SHAPE, "", truncated, rows, pieces, 2 if pieces else 0, "2026-11-24 15:00:00+00:00")


def statements() -> Iterator[str]:
    """All that is ever said, in every form."""
    yield from (REGISTRY.find(), REGISTRY.create_schema(), *REGISTRY.create(), TABLE.known(), TABLE.states(["k", "l"]))
    yield from REGISTRY.claim(Owner("desk", "1"), Owner("shop", "2"))
    yield from TABLE.create(SHAPE)
    yield from TABLE.alter(TableShape(SHAPE.columns[:3]), SHAPE)
    for before, after in WIDENINGS:
        present, wanted = (TableShape((ColumnShape("c", "c", kind),)) for kind in (before, after))
        yield from TABLE.alter(present, wanted)
    for manifest, lagging in ((MANIFEST, False), (MANIFEST, True), (None, True)):
        yield from TABLE.read(COPIES, manifest, "0" * 104, lagging=lagging)
    for load_step in (
        load(),
        load(pieces=None),
        load(rows=None, pieces=None, truncated="f" * 104),
        load(truncated="f" * 104),
    ):
        yield from TABLE.write(load_step)
    yield from probe(Copies("default"), MANIFEST)


@pytest.mark.parametrize("statement", sorted(set(statements())), ids=lambda statement: " ".join(statement.split()[:2]))
def test_a_statement_parses_as_redshift_sql(statement: str) -> None:
    without_sort_key = re.sub(r" SORTKEY\(\w+\)", "", statement)  # sqlglot stumbles over it
    (parsed,) = sqlglot.parse(without_sort_key, dialect="redshift")
    assert parsed is not None
    # Of LOCK sqlglot knows no more than that it is a command.
    assert isinstance(parsed, exp.Command) == statement.startswith("LOCK TABLE"), type(parsed)


def test_nothing_in_a_transaction_commits_it() -> None:
    verbs = {statement.split()[0] for statement in statements()}
    assert verbs == {"ALTER", "COPY", "CREATE", "DELETE", "DROP", "INSERT", "LOCK", "SELECT", "UPDATE"}  # no TRUNCATE


def test_a_writing_transaction_locks_first_and_then_checks_its_reads() -> None:
    for script in (TABLE.write(load()), TABLE.create(SHAPE), TABLE.alter(TableShape(SHAPE.columns[:3]), SHAPE)):
        assert script[0] == 'LOCK TABLE "desk".ragstream_tables'
        assert script[1].startswith("SELECT 1 / CASE WHEN COUNT(*) =")
    assert [s.split("FROM")[0] for s in TABLE.write(load())].count(
        "SELECT 1 / CASE WHEN COUNT(*) = 0 THEN 1 ELSE 0 END "
    ) == 2


def test_a_transaction_fits_into_a_batch_of_the_data_api() -> None:
    wide = TableShape(tuple(ColumnShape(f"c{at}", f"c{at}", "int") for at in range(60)))
    wider = TableShape(tuple(ColumnShape(f"c{at}", f"c{at}", "bigint") for at in range(90)))
    shape, longest = wide, len(TABLE.create(wide))
    for step in steps(wide, wider):
        longest, shape = max(longest, len(TABLE.alter(shape, step))), step
    assert shape == wider
    assert max(longest, len(TABLE.write(load(truncated="f" * 104)))) <= 40


def test_a_load_reads_as_the_recipe() -> None:
    rows, new = '"desk"."odd ""t"" % ключ__rows"', "ragstream_new"
    guard = f"{rows}._revision < {new}._revision AND {rows}._sequence <= {new}._sequence"
    script = TABLE.write(load(pieces=None))
    assert [s for s in script if s.startswith(("DELETE", "COPY"))] == [
        f"COPY ragstream_stage FROM '{MANIFEST}' IAM_ROLE '{COPIES.iam_role}' FORMAT AS PARQUET MANIFEST",
        f"DELETE FROM {rows} USING {new} WHERE {rows}._key = {new}._key AND {guard}",
    ]
    assert "JSON_PARSE(s.c14), JSON_PARSE(s.c15)" in next(s for s in script if s.startswith(f"INSERT INTO {new}"))


def test_columns_have_redshifts_types() -> None:
    (created,) = [s for s in TABLE.create(SHAPE) if s.startswith("CREATE TABLE")]
    business = created.partition("_state VARCHAR(60000) NOT NULL, ")[2]
    assert business == (
        '"id" BIGINT, "flag" BOOLEAN, "n" INTEGER, "s" SMALLINT, "r" REAL, "d" DOUBLE PRECISION, "price" DECIMAL(10,2), '
        '"wide" DECIMAL(38,3), "any" VARCHAR(65535), "t" VARCHAR(65535), "b" VARBYTE(16777216), "day" DATE, '
        '"at" TIMESTAMP, "seen" TIMESTAMPTZ, "doc" SUPER, "tags" SUPER, "mixed case" VARCHAR(65535), '
        '"ctid_2" VARCHAR(65535), "%s" VARCHAR(65535)) DISTKEY(_key) SORTKEY(_key)'
    )


def test_literal_that_would_need_escape_is_refused_and_names_never_need_one() -> None:
    for text in ("it's", "back\\slash", "nul\0"):
        with pytest.raises(ValueError, match="escape"):
            literal(text)
        assert literal(plain(text))


def test_the_registry_gives_the_shape_back() -> None:
    rows = [(at, plain(c.source), plain(c.name), c.kind) for at, c in enumerate(SHAPE.columns)]
    assert registered(rows[::-1]) == SHAPE
