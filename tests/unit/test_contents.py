"""What is a difference between a store and the lake, and how both are weighed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas.documents import ActualChunk, ActualDocument
from sinks.digests import (
    ExpectedChunk,
    ExpectedDocument,
    canonical,
    checksums,
    chunk_line,
    classify_drift,
    document_line,
    weight,
)

CHUNK = ActualChunk("c", 0, "h", "h", "good")
HELD = ActualDocument(
    "d", "d", "public.t", '{"id": 1}', "05", 3, live=True, spec_digest="r", metadata="{}", chunks=(CHUNK,)
)
WANTED = ExpectedDocument(
    "d",
    "public.t",
    "05",
    weight(document_line(HELD)),
    waits=False,
    chunks=(ExpectedChunk("c", "h", chunk_line("d", CHUNK), frozenset({"good", "as good"})),),
)
LANDED = {"public.t": "07"}


def kinds(wanted: ExpectedDocument | None, *stored: ActualDocument, truncated: str = "") -> list[str]:
    return [finding.kind for finding in classify_drift(wanted, stored, LANDED, {"public.t": truncated})]


@pytest.mark.parametrize(
    ("changed", "finding_kinds"),
    [
        ({}, []),
        ({"sequence": "04"}, ["stale"]),
        ({"sequence": "06"}, []),
        ({"metadata": '{"a": 1}'}, ["stale"]),
        ({"live": False}, ["stale"]),
        ({"chunks": ()}, ["stale"]),
        ({"chunks": (replace(CHUNK, chunk_index=1),)}, ["stale"]),
        ({"chunks": (replace(CHUNK, text_hash="x"),)}, ["stale"]),
        ({"chunks": (replace(CHUNK, vector=""),)}, ["stale"]),
        ({"chunks": (replace(CHUNK, vector="bad"),)}, ["stale"]),
        ({"chunks": (replace(CHUNK, vector="as good"),)}, []),
        ({"chunks": (CHUNK, CHUNK)}, ["duplicate"]),
    ],
)
def test_a_document_is_compared_by_all_that_readers_see(changed: dict[str, object], finding_kinds: list[str]) -> None:
    assert kinds(WANTED, replace(HELD, **changed)) == finding_kinds  # type: ignore[arg-type]


def test_what_one_side_lacks_is_drift_unless_the_other_is_ahead() -> None:
    assert kinds(WANTED) == ["missing"]
    assert kinds(WANTED, truncated="05") == []
    assert kinds(None, HELD) == ["orphan"]
    assert kinds(None, replace(HELD, sequence="08")) == []
    assert kinds(None, replace(HELD, sequence="08", table="of no pipeline")) == ["orphan"]
    assert kinds(WANTED, HELD, replace(HELD, name="again")) == ["duplicate"]


def test_a_document_that_waits_for_a_column_keeps_whatever_chunks_it_has() -> None:
    assert kinds(replace(WANTED, waits=True, chunks=()), HELD) == []


def test_a_line_that_stands_twice_shows_in_the_checksum() -> None:
    once, twice = checksums([HELD], 1), checksums([HELD, HELD], 1)
    assert (once["d"].rows, twice["d"].rows) == (2, 4)
    assert twice["d"].checksum == 2 * once["d"].checksum


def test_json_is_written_as_postgresql_writes_jsonb() -> None:
    assert canonical('{"bb":1.50,"a":[1e3,-0,-0.0],"c":"\\u20ac\\n\\u0001"}') == (
        '{"a": [1000, 0, 0.0], "c": "\u20ac\\n\\u0001", "bb": 1.50}'
    )
    assert canonical("no json") == "no json"
