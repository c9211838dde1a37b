"""Values of each engine's types, as its connector sends them: canonical, in Delta's column, in Redshift's, and in a document.

`sqlserver_*` and `oracle_*` were not recorded from a server: Debezium 3.5's own value converters, schema builders and source
blocks made the envelopes from values as the JDBC driver gives them, and Kafka Connect's JsonConverter wrote them.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from lake.tables.typed import UnfitError, into
from schemas.changes import Change, Changes
from tests.recorded import CONTEXT, records
from transforms.envelopes.decode import decode, seen_schema
from transforms.fold import Rows, apply
from transforms.values.types import connect_type, spark_type
from warehouse.kinds import kind_of, redshift_type


def changes(name: str) -> list[Change]:
    meanings = [decode(record, CONTEXT) for record in records(name)]
    assert not [meaning for meaning in meanings if isinstance(meaning, Changes) and meaning.unfit]
    return [change for meaning in meanings if isinstance(meaning, Changes) for change in meaning.changes]


def announced(name: str, table: str) -> dict[str, str]:
    schemas = [schema for record in records(name) if (schema := seen_schema(record, CONTEXT)) and schema.table == table]
    return dict(schemas[0].columns)


REDSHIFT = {
    "smallint": "SMALLINT", "int": "INTEGER", "bigint": "BIGINT", "decimal(20,0)": "DECIMAL(20,0)", "float": "REAL",
    "double": "DOUBLE PRECISION", "boolean": "BOOLEAN", "string": "VARCHAR(65535)", "binary": "VARBYTE(16777216)",
    "date": "DATE", "timestamp_ntz": "TIMESTAMP", "timestamp": "TIMESTAMPTZ",
}  # fmt: skip
"""Redshift's type of each of Delta's, but decimals, which have the same digits in both, and JSON."""


def in_redshift(types: dict[str, str]) -> dict[str, str]:
    return {name: redshift_type(kind_of(kind)) for name, kind in types.items()}


def as_documented(kinds: dict[str, str], **others: str) -> dict[str, str]:
    return {name: REDSHIFT.get(kind, kind.upper()) for name, kind in kinds.items()} | others


SQLSERVER: dict[str, tuple[Any, str, str]] = {
    "id": (7, "int", "INTEGER"),
    "tiny": (255, "smallint", "SMALLINT"),
    "big": (-(2**63), "bigint", "BIGINT"),
    "price": (Decimal("-922337203685477.5808"), "decimal(19,4)", "DECIMAL(19,4)"),
    "small": (Decimal("1.5000"), "decimal(10,4)", "DECIMAL(10,4)"),
    "num": (Decimal("1234567890123456789012345678.0123456789"), "decimal(38,10)", "DECIMAL(38,10)"),
    "d": ("9999-12-31", "date", "DATE"),
    "t7": ("23:59:59.123456700", "string", "VARCHAR(65535)"),
    "dt": ("1753-01-01T00:00:00.003000", "timestamp_ntz", "TIMESTAMP"),
    "dt7": ("2024-02-29T12:34:56.123456700", "timestamp_ntz", "TIMESTAMP"),
    "off": ("2024-02-29T18:04:56.1234567+05:30", "timestamp", "TIMESTAMPTZ"),
    "flag": (True, "boolean", "BOOLEAN"),
    "guid": ("6F9619FF-8B86-D011-B42D-00C04FC964FF", "string", "VARCHAR(65535)"),
    "raw": ("AAH+/w==", "binary", "VARBYTE(16777216)"),
    "x": ("<a>é</a>", "string", "VARCHAR(65535)"),
    "f": (Decimal("2.718281828459045"), "double", "DOUBLE PRECISION"),
    "r": (Decimal("1.5"), "float", "REAL"),
    "rv": ("AAAAAAAAB9E=", "binary", "VARBYTE(16777216)"),
    "body": ("text ☃", "string", "VARCHAR(65535)"),
}
TOO_FINE = {"dt7", "off"}
"""Values with a tenth of a microsecond: exact in `changes` and in documents, and in no column of Delta or Redshift."""


@pytest.mark.covers("sqlserver", "debezium", "type", "made")
@pytest.mark.parametrize("mode", ["string", "precise"])
def test_sql_servers_values_are_exact_or_fit_no_column(mode: str) -> None:
    first, types = changes(f"sqlserver_{mode}_schemas")[0], announced(f"sqlserver_{mode}_schemas", "shop.dbo.items")
    assert first.columns == {name: value for name, (value, *_) in SQLSERVER.items()}
    assert {name: spark_type(kind) for name, kind in types.items()} == {
        n: kind for n, (_, kind, _) in SQLSERVER.items()
    }
    assert in_redshift(types) == {n: k for n, (_, _, k) in SQLSERVER.items()}
    for name, (value, kind, _) in SQLSERVER.items():
        if name in TOO_FINE:
            with pytest.raises(UnfitError):
                into(value, kind)
        else:
            assert into(value, kind) is not None
    assert into(SQLSERVER["dt"][0], "timestamp_ntz").isoformat() == "1753-01-01T00:00:00.003000"


@pytest.mark.covers("sqlserver", "debezium", ("snapshot", "delete", "key change"), "made")
@pytest.mark.parametrize("mode", ["string", "precise"])
def test_sql_servers_history_ends_in_its_rows(mode: str) -> None:
    rows = Rows()
    for change in changes(f"sqlserver_{mode}_schemas"):
        apply(rows, change)
    live = {key: state for key, state in rows.items() if state.exists}
    assert list(live) == ['{"id":8}']
    values = live['{"id":8}'].values()
    assert (values["body"], values["tiny"], values["price"]) == ("changed", None, None)
    assert not live['{"id":8}'].unresolved(list(values))


@pytest.mark.covers(("mysql", "sqlserver", "oracle"), "debezium", "type", "documented")
@pytest.mark.parametrize(
    ("kind", "source", "value", "canonical", "exact"),
    [
        ("string", "DECIMAL UNSIGNED", "1.10", "decimal(10,2)", Decimal("1.10")),
        ("string", "SMALLMONEY", "1.50", "decimal(10,2)", Decimal("1.50")),
        ("string", "NUMBER", "12345.67", "decimal(10,2)", Decimal("12345.67")),
        ("string", "FLOAT", "1E-130", "numeric", Decimal("1E-130")),
        ("string", "VARCHAR", "1.10", "text", "1.10"),
        ("bytes", "TIMESTAMP", "AAAAAAAAB9E=", "bytes", "AAAAAAAAB9E="),
        ("int64", "INT UNSIGNED", 2**32 - 1, "bigint", 2**32 - 1),
        ("int64", "BIGINT UNSIGNED ZEROFILL", -1, "decimal(20,0)", 2**64 - 1),
    ],
)
def test_a_type_is_told_by_encoding_and_by_its_source(
    kind: str, source: str, value: Any, canonical: str, exact: Any
) -> None:
    source_column = {"type": source, "length": "10", "scale": "2"}
    parameters = {f"__debezium.source.column.{name}": text for name, text in source_column.items()}
    field = {"type": kind, "parameters": parameters}
    name, convert = connect_type(field)
    assert (name, convert(value) if convert else value) == (canonical, exact)


@pytest.mark.parametrize("text", ["2024-02-29T12:34:56.123456700", "2024-02-29T12:34:56.0000001"])
def test_a_moment_finer_than_a_column_is_refused_and_never_cut(text: str) -> None:
    with pytest.raises(UnfitError):
        into(text, "timestamp_ntz")
    assert into("2024-02-29T12:34:56.123456000", "timestamp_ntz").microsecond == 123_456


ORACLE: dict[str, tuple[Any, str]] = {
    "ID": (Decimal(7), "decimal(9,0)"),
    "BIG": (Decimal("9" * 38), "decimal(38,0)"),
    "ANY_NUM": (Decimal("3.14159265358979"), "string"),
    "AMOUNT": (Decimal("-1234567890.12"), "decimal(12,2)"),
    "NEG": (12300, "int"),
    "D": ("2024-02-29T12:34:56", "timestamp_ntz"),
    "TS6": ("2024-02-29T12:34:56.123456", "timestamp_ntz"),
    "TS9": ("2024-02-29T12:34:56.123456789", "timestamp_ntz"),
    "TZ": ("2024-02-29T12:34:56.123456+05:30", "timestamp"),
    "NAME": ("Ünïcode", "string"),
    "RAWCOL": ("AAH+/w==", "binary"),
    "BODY": ("long text", "string"),
    "PIC": ("AAH+/w==", "binary"),
}


@pytest.mark.covers("oracle", "debezium", "type", "made")
@pytest.mark.parametrize("mode", ["string", "precise"])
def test_oracles_values_are_exact_or_fit_no_column(mode: str) -> None:
    first, types = changes(f"oracle_{mode}_schemas")[0], announced(f"oracle_{mode}_schemas", "HR.STAFF")
    assert first.columns == {name: value for name, (value, _) in ORACLE.items()}
    kinds = {name: kind for name, (_, kind) in ORACLE.items()} | ({"ID": "int"} if mode == "precise" else {})
    assert {name: spark_type(kind) for name, kind in types.items()} == kinds
    assert in_redshift(dict(types)) == as_documented(kinds)
    for name in ORACLE.keys() - {"TS9"}:
        assert into(ORACLE[name][0], kinds[name]) is not None
    with pytest.raises(UnfitError):
        into(ORACLE["TS9"][0], "timestamp_ntz")


@pytest.mark.covers("oracle", "debezium", ("large value", "truncate"), "made")
@pytest.mark.parametrize("mode", ["string", "precise"])
def test_oracles_unchanged_lobs_stay_and_its_transactions_rank_by_commit(mode: str) -> None:
    *rows_of, truncation = changes(f"oracle_{mode}_schemas")
    rows = Rows()
    for change in rows_of:
        apply(rows, change)
    (state,) = rows.values()
    values = state.values()
    assert (values["BODY"], values["PIC"], values["NAME"]) == ("x", "AAH+/w==", None)
    assert rows_of[1].unavailable == ("BODY", "PIC")
    sequences = [change.sequence for change in (*rows_of, truncation)]
    assert sequences == sorted(sequences)
    assert truncation.op == "t"
    assert {change.key for change in rows_of} == {'{"ID":7}'}


MARIADB: dict[str, tuple[Any, str]] = {
    "id": (1, "int"), "ub": (2**64 - 1, "decimal(20,0)"), "ui": (2**32 - 1, "bigint"), "mu": (2**24 - 1, "int"),
    "su": (2**16 - 1, "int"), "tu": (255, "smallint"), "ti": (-128, "smallint"), "t1": (1, "smallint"),
    "de": (Decimal("1234567890123456789012345678.0123456789"), "decimal(38,10)"),
    "wide": (Decimal("12345678901234567890123456789012345.123456789012345678901234567891"), "string"),
    "du": (Decimal("1.10"), "decimal(10,2)"), "f": (Decimal("1.5"), "float"), "d": (Decimal("2.718281828459045"), "double"),
    "y": (2155, "int"), "da": ("9999-12-31", "date"), "dn": ("1970-01-01", "date"), "t": ("-838:59:59", "string"),
    "t6": ("-00:00:00.000001", "string"), "dt": ("1000-01-01T00:00:00", "timestamp_ntz"),
    "dt3": ("2024-02-29T12:34:56.789000", "timestamp_ntz"), "dt6": ("9999-12-31T23:59:59.999999", "timestamp_ntz"),
    "ts": ("2024-02-29T12:34:56.789012Z", "timestamp"), "s": ("a,c", "string"), "e": ("y 'z", "string"),
    "b1": (True, "boolean"), "b12": ("000000000101", "string"), "b64": (f"1{'0' * 62}1", "string"),
    "bi": ("AAEAAA==", "binary"), "vb": ("AAH+/w==", "binary"), "bl": ("YmxvYgA=", "binary"), "tx": ("text ☃😀", "string"),
    "j": ('{"b":1,"a":[1.10]}', "string"), "u": ("6f9619ff-8b86-d011-b42d-00c04fc964ff", "string"),
    "p": ({"x": Decimal("1.5"), "y": Decimal("-2.5"), "wkb": "AQEAAAAAAAAAAAD4PwAAAAAAAATA", "srid": 4326}, "string"),
    "c": ("ab", "string"), "l1": ("é", "string"),
}  # fmt: skip
"""Recorded: MariaDB 11.4.5, Debezium 3.5.0 in its default modes; `dn` is a zero date in a column that is NOT NULL."""


@pytest.mark.covers("mariadb", "debezium", ("type", "snapshot"), "recorded")
def test_recorded_values_of_mariadb_are_exact_in_snapshot_and_stream() -> None:
    read, types = changes("mariadb114_schemas"), announced("mariadb114_schemas", "shop.kinds")
    rows = {change.key: change for change in read if change.table == "shop.kinds"}
    for key in (1, 11):
        values = {name: value for name, value in rows[f'{{"id":{key}}}'].columns.items() if name != "g"}
        assert values == {name: value for name, (value, _) in MARIADB.items()} | {"id": key}
    kinds = {name: spark_type(kind) for name, kind in types.items()}
    assert {name: kinds[name] for name in MARIADB} == {name: kind for name, (_, kind) in MARIADB.items()}
    assert {name: kind for name, kind in in_redshift(dict(types)).items() if name in MARIADB} == as_documented(
        {name: kind for name, (_, kind) in MARIADB.items()}, **({"j": "SUPER"} if types["j"] == "json" else {})
    )
    assert all(into(value, kind) is not None for value, kind in MARIADB.values())
    snapshot, stream = rows['{"id":2}'].columns, rows['{"id":12}'].columns
    assert (snapshot["da"], snapshot["dt"], snapshot["ts"], snapshot["t"]) == (None, None, None, "838:59:59")
    assert (stream["da"], stream["dt"], stream["ts"], stream["e"]) == (None, None, "1970-01-01T00:00:00.000000Z", "")


@pytest.mark.covers("mariadb", "debezium", ("delete", "key change"), "recorded")
def test_a_recorded_binlog_keeps_its_order_over_its_files() -> None:
    """Snapshot and first change have one position; a key change and deletes come after the log's rollover."""
    parts = [change for change in changes("mariadb114_schemas") if change.table == "shop.parts"]
    assert [change.sequence for change in parts] == sorted(change.sequence for change in parts)
    rows = Rows()
    for change in reversed(parts):
        apply(rows, change)
    live = {key: state.values() for key, state in rows.items() if state.exists}
    assert {key: (row["n"], row["body"]) for key, row in live.items()} == {
        '{"id":1}': (11, "x" * 60),
        '{"id":20}': (12, "b2"),
    }
