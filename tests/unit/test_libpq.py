"""A connection string is read as libpq reads it, without libpq: this machine is never taken for another, nor the reverse."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from schemas.transport import is_this_machine
from sinks.pgvector import libpq

DECIDING = ("host", "hostaddr", "service", "sslmode", "sslrootcert")
WORDS = [
    "localhost", "127.0.0.1", "db.example", "[::1]", "/run", "%2Frun", "u", "u:p", "d", "5432", "host", "hostaddr", "sslmode",
    "require", "dbname", "service", "disable", "postgresql://", "postgres://", "@", "/", "?", "&", "=", ",", ":", " ", "\t",
    "\\", "'", "%40", "é",
]  # fmt: skip
STRINGS = st.lists(st.sampled_from(WORDS), max_size=12).map("".join)
URIS = STRINGS.map("postgresql://".__add__)
PAIRS = st.lists(
    st.tuples(st.sampled_from(DECIDING[:4]), st.sampled_from(["=", " = ", "= "]), STRINGS), max_size=4
).map(lambda pairs: " ".join(name + sign + value for name, sign, value in pairs))


@given(STRINGS | URIS | PAIRS)
@settings(max_examples=300)
@example("postgresql://127.0.0.1?x@db/d")
@example("postgresql://u:p@[::1]:5432,db:1/d?host=db&sslmode=disable")
@example("host=localhost\\ x hostaddr = 'a''b'dbname=d")
@example("host= port=5 host='it\\'s'")
def test_it_is_read_as_libpq_reads_it_or_as_another_machine(dsn: str) -> None:
    try:
        meant = conninfo_to_dict(dsn)
    except (psycopg.ProgrammingError, UnicodeError):
        return  # nobody connects by it
    read = libpq.options_of(dsn)
    if read == {"host": "?"}:
        assert not is_this_machine(read["host"])
        return
    assert {name: read.get(name) for name in DECIDING if read.get(name)} == {
        name: meant[name] for name in DECIDING if meant.get(name)
    }


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:p@db:5432,[::1]/d?connect_timeout=3", "postgres://%2Frun/d", "postgresql:///d?host=/run",
        "host=db port=5", "host='d b' password='a\\'b'", "", "dbname=d",
    ],
)  # fmt: skip
def test_what_a_connection_string_lacks_is_added_to_it(dsn: str) -> None:
    assert libpq.options_of(dsn) != {"host": "?"}
    added = {"sslmode": "verify-full", "sslrootcert": "/ca.pem"}
    assert conninfo_to_dict(libpq.with_options(dsn, added)) == conninfo_to_dict(dsn) | added


def test_variables_stand_where_a_connection_string_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOSTADDR", "10.0.0.1")
    monkeypatch.setenv("PGSSLROOTCERT", "")
    assert libpq.environment() == {"hostaddr": "10.0.0.1"}
