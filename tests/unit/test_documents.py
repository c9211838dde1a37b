"""Rows become documents, and documents are compared with what a store holds."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from semantic_text_splitter import TextSplitter

from schemas.changes import Change
from schemas.documents import DocumentWrite, Refusal, StoredChunk, StoredDocument
from schemas.tables import ChunkConfig, DocumentConfig, TableConfig
from tests.history import TABLE, ModelTable, folded, key_of
from transforms.documents.chunking import WINDOW, split, tokens, windows_of
from transforms.documents.planning import (
    DocumentSpec,
    chunks_of,
    diff,
    document_id,
    is_refused,
    made_by,
    plan,
    refused,
)
from transforms.documents.template import render
from transforms.fold import join

DOCUMENT = DocumentConfig(template="{a}\n\n{body}", metadata=("a",), chunk=ChunkConfig(max_tokens=16))
META_ONLY = DocumentConfig(template="{body}", metadata=("a",))


def spec(document: DocumentConfig = META_ONLY) -> DocumentSpec:
    document_spec = DocumentSpec.of(TableConfig(table=TABLE, keys=("id",), document=document))
    assert document_spec
    return document_spec


def stored_after(table: ModelTable, document: DocumentConfig = META_ONLY, number: int = 1) -> StoredDocument:
    state = folded(table.changes)[key_of(number)]
    write = plan(None, state, key_of(number), spec(document))
    assert write
    places = tuple(StoredChunk(c.chunk_id, c.chunk_index, c.content_hash) for c in write.chunks)
    return StoredDocument(write.document_id, 1, write.state, write.spec_digest, places)


words = st.lists(st.sampled_from("alpha beta gamma delta\n\n epsilon. zeta! ü☃ 漢字".split(" ")), max_size=120).map(
    " ".join
)


@settings(max_examples=100, deadline=None)
@given(old=words, new=words)
def test_a_diff_turns_the_held_set_into_the_wanted_one(old: str, new: str) -> None:
    stored = [StoredChunk(c.chunk_id, c.chunk_index, c.content_hash) for c in chunks_of("d", old, DOCUMENT)]
    wanted = chunks_of("d", new, DOCUMENT)
    difference = diff(stored, wanted)
    result = {c.chunk_id: c.chunk_index for c in stored if c.chunk_id not in difference.dropped}
    result |= {c.chunk_id: c.chunk_index for c in (*difference.moved, *difference.added)}
    assert result == {c.chunk_id: c.chunk_index for c in wanted}
    assert sorted(result.values()) == list(range(len(wanted)))
    assert not {c.content_hash for c in difference.added} & {c.content_hash for c in stored} or len(wanted) > len(
        {c.content_hash for c in wanted}
    )


@settings(max_examples=60, deadline=None)
@given(text=words)
def test_chunks_fit_and_lose_no_word(text: str) -> None:
    pieces = split(text, ChunkConfig(max_tokens=16))
    assert all(tokens(piece) <= 16 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@settings(max_examples=60, deadline=None)
@given(text=words, most=st.sampled_from([16, 40, 240]), overlap=st.sampled_from([0, 8]))
def test_a_text_of_one_window_is_cut_as_the_splitter_cuts_it(text: str, most: int, overlap: int) -> None:
    text = text.strip() * 30
    assert len(text.encode()) <= WINDOW
    whole = TextSplitter.from_callback(tokens, most, overlap=overlap).chunks(text)
    assert split(text, ChunkConfig(max_tokens=most, overlap=overlap)) == whole


@settings(max_examples=60, deadline=None)
@given(text=words, size=st.integers(2, 90))
def test_windows_lose_nothing_and_are_never_wider_than_asked(text: str, size: int) -> None:
    windows = list(windows_of(text, size))
    assert "".join(windows) == text
    assert all(len(window) <= size for window in windows)


@pytest.mark.parametrize("kind", ["base64", "words", "digits", "CJK", "spaces", "lower case"])
def test_a_long_text_without_sentences_is_cut_in_linear_time(kind: str) -> None:
    r = random.Random(1)
    alphabet: dict[str, Sequence[str]] = {
        "base64": "QWERTYqwerty0123+/",
        "words": "abcdef ",
        "digits": "0123456789,",
        "CJK": "好后原仓拒的请包",
        "spaces": "a" + " " * 40,
        "lower case": ["one and more. ", "two and more. "],
    }
    text = "".join(r.choices(alphabet[kind], k=1_000_000))[:1_000_000]
    began = time.process_time()
    pieces = split(text, ChunkConfig())
    assert time.process_time() - began < 5  # without windows 6 s to hours
    assert all(tokens(piece) <= 240 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_no_chunk_is_without_a_visible_character() -> None:
    assert chunks_of("d", "\u200b\ufeff \u2060", DOCUMENT) == ()
    text = "\n\n".join(
        [
            "one paragraph of a text that is long enough to stand alone",
            "\u200b " * 40,
            "another one that is as long as it was, and some",
        ]
    )
    pieces = split(text, ChunkConfig(max_tokens=16))
    assert pieces
    assert all(any(letter.isalpha() for letter in piece) for piece in pieces)


def test_an_equal_text_twice_has_two_names_and_one_content() -> None:
    text = "same same same same same same same same same\n\n" * 3
    chunks = chunks_of("d", text, DOCUMENT)
    assert len({c.chunk_id for c in chunks}) == len(chunks)
    assert len({c.content_hash for c in chunks}) < len(chunks)


def test_a_metadata_change_touches_no_chunk() -> None:
    table = ModelTable()
    table.insert(1, "x")
    stored = stored_after(table)
    table.update_a(1, "closed")
    write = plan(stored, folded(table.changes)[key_of(1)], key_of(1), spec())
    assert write is not None
    assert not write.texts_changed
    assert (write.metadata, write.added, write.moved, write.dropped) == ({"a": "closed"}, (), (), ())


def test_what_the_store_holds_already_is_no_write() -> None:
    table = ModelTable()
    table.insert(1, "x")
    assert plan(stored_after(table), folded(table.changes)[key_of(1)], key_of(1), spec()) is None


def test_another_template_renders_again() -> None:
    table = ModelTable()
    table.insert(1, "x")
    write = plan(stored_after(table), folded(table.changes)[key_of(1)], key_of(1), spec(DOCUMENT))
    assert write is not None
    assert [c.chunk_text for c in write.added] == ["x\n\nbody x"]
    assert len(write.dropped) == 1


def test_a_deleted_row_drops_every_chunk_and_keeps_no_text() -> None:
    table = ModelTable()
    table.insert(1, "x")
    stored = stored_after(table)
    table.delete(1)
    write = plan(stored, folded(table.changes)[key_of(1)], key_of(1), spec())
    assert write is not None
    assert (write.live, write.chunks, write.metadata, write.state.columns) == (False, (), {}, {})
    assert write.dropped == tuple(c.chunk_id for c in stored.chunks)


def test_a_pending_body_leaves_the_chunks_alone() -> None:
    table = ModelTable()
    table.insert(1, "x")
    table.update_a(1, "y")
    write = plan(None, folded(table.changes[1:])[key_of(1)], key_of(1), spec())
    assert write is not None
    assert (write.unresolved, write.chunks, write.live) == (("body",), (), True)


def refused_after(table: ModelTable, why: Refusal) -> StoredDocument:
    """What a store holds once it, or the model, refused the row as it is."""
    stored = stored_after(table)
    write = plan(stored, folded(table.changes)[key_of(1)], key_of(1), spec(META_ONLY))
    refusal = refused(write or DocumentWrite(stored.document_id, TABLE, key_of(1), 1, stored.state, stored.spec_digest, live=True,
                                             stored_chunk_ids=tuple(c.chunk_id for c in stored.chunks)), why)  # fmt: skip
    assert (refusal.chunks, refusal.added, refusal.moved, refusal.live) == ((), (), (), True)
    assert set(refusal.dropped) == {c.chunk_id for c in stored.chunks}
    return StoredDocument(refusal.document_id, 2, refusal.state, refusal.spec_digest)


@pytest.mark.parametrize("stage", ["embed", "store"])
def test_a_refused_document_is_planned_whole_again_whatever_is_told_of_it(stage: Literal["embed", "store"]) -> None:
    table = ModelTable()
    table.insert(1, "x")
    stored = refused_after(table, Refusal(stage, "ODD", "no"))
    assert is_refused(stored.spec_digest)
    assert made_by(stored.spec_digest) == spec().digest
    now = folded(table.changes)[key_of(1)]
    for state in (join(stored.state, now), join(now, stored.state)):
        again = plan(stored, state, key_of(1), spec())
        assert again is not None
        assert [c.chunk_text for c in again.added] == ["body x"]
        assert again.refused_as == stored.spec_digest
    table.delete(1)
    gone = plan(stored, join(stored.state, folded(table.changes)[key_of(1)]), key_of(1), spec())
    assert gone is not None
    assert (gone.live, is_refused(gone.spec_digest)) == (False, False)


def test_a_refused_document_waits_for_its_values_and_is_never_half_written() -> None:
    table = ModelTable()
    table.insert(1, "x")
    stored = refused_after(table, Refusal("store", "ODD", "no"))
    assert stored.state.values() == {}
    assert plan(stored, stored.state, key_of(1), spec()) is None
    table.update_a(1, "newer")
    write = plan(stored, join(stored.state, folded(table.changes[1:])[key_of(1)]), key_of(1), spec())
    assert write is not None
    assert (write.unresolved, write.chunks, write.metadata) == (("body",), (), {"a": "newer"})
    assert join(stored.state, folded(table.changes)[key_of(1)]).values()["body"] == "body x"


def test_a_text_over_the_limit_is_refused_and_digests_ignore_the_limit() -> None:
    table = ModelTable()
    table.insert(1, "x")
    short = META_ONLY.model_copy(update={"max_bytes": 3})
    write = plan(stored_after(table), folded(table.changes)[key_of(1)], key_of(1), spec(short))
    assert write is None, "what stands is not looked at again"
    write = plan(None, folded(table.changes)[key_of(1)], key_of(1), spec(short))
    assert write is not None
    assert write.refused == Refusal(
        "embed", "DOCUMENT_TOO_LONG", "the document's text has 6 bytes, document.max_bytes is 3"
    )
    assert spec(short).digest == spec().digest == made_by(write.spec_digest)


def test_chunks_follow_the_models_limit_and_the_digest_shows_it() -> None:
    long = DocumentConfig(template="{body}", chunk=ChunkConfig(max_tokens=1200, overlap=400))
    cut = spec(long).within(512)
    assert (cut.document.chunk.max_tokens, cut.document.chunk.overlap) == (512, 256)
    assert cut is spec(long).within(512)
    assert cut.digest != spec(long).digest
    assert cut.digest == spec(long.model_copy(update={"chunk": ChunkConfig(max_tokens=512, overlap=256)})).digest
    assert spec(long).within(1200) == spec(long).within(8192) == spec(long)
    assert max(map(tokens, split("word " * 4000, cut.document.chunk))) <= 512


def test_rendering_writes_values_as_a_reader_would() -> None:
    assert (
        render("{t}|{n}|{b}|{l}|{x}", {"t": "a\0\ud800", "n": None, "b": True, "l": [1, "é"]})
        == 'a\ufffd\ufffd||true|[1,"é"]|'
    )


def test_documents_of_different_tables_never_share_a_name() -> None:
    assert document_id("a.b", key_of(1)) != document_id("a.c", key_of(1))
    assert len(document_id("a.b", key_of(1))) == 32


@pytest.mark.parametrize("template", ["no column", "{}", "{a!r}", "{a:>10}"])
def test_a_template_that_names_no_column_is_refused(template: str) -> None:
    with pytest.raises(ValidationError):
        DocumentConfig(template=template)


def test_chunks_depend_on_nothing_but_the_text() -> None:
    text = " ".join(random.Random(3).choices("alpha beta gamma. delta\n\n".split(), k=400))
    assert chunks_of("d", text, DOCUMENT) == chunks_of("d", text, DOCUMENT)


def change_of(*, complete: bool, columns: dict[str, str], unavailable: tuple[str, ...] = ()) -> Change:
    return Change(TABLE, "u", "7", key_of(1), columns, complete=complete, unavailable=unavailable)


@pytest.mark.parametrize(
    ("change", "absent"),
    [
        (change_of(complete=True, columns={"id": "1", "body": "b", "a": "x"}), ()),
        (change_of(complete=True, columns={"id": "1", "body": "b"}), ("a",)),
        (change_of(complete=True, columns={"id": "1", "a": "x"}, unavailable=("body",)), ()),
        (change_of(complete=False, columns={"id": "1"}), None),
    ],
    ids=["all there", "never told", "there, left out by the record", "no whole row"],
)
def test_a_whole_row_shows_which_columns_of_the_document_the_table_lacks(
    change: Change, absent: tuple[str, ...] | None
) -> None:
    whole_row = spec().whole_row(change)
    assert (whole_row.absent if whole_row else None) == absent


def test_an_unknown_column_is_reported_with_the_names_near_it() -> None:
    document = DocumentConfig(template="{title}\n{descripton}", metadata=("Status",))
    table = TableConfig(table="public.t", keys=("id",), columns={"prise": "decimal(9,2)"}, document=document)
    known = ["id", "title", "description", "status", "price"]
    assert table.unknown_columns(known) == [
        "public.t has no column 'prise', which `columns` names; near it: price",
        "public.t has no column 'descripton', which `document.template` names; near it: description",
        "public.t has no column 'Status', which `document.metadata` names; near it: status",
    ]
    assert table.unknown_columns([*known, "prise", "descripton", "Status"]) == []
