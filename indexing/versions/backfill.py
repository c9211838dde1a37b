"""Whether one index version of a store holds all that another one does, and what it lacks brought over: no lake, no Spark.

Rows are joined, not copied, and written under the guard, so live writers may go on. What a writer did before one
was announced stands in the others before this looks (`indexing.versions.every_version`); what it does later goes to both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched
from typing import TYPE_CHECKING

from indexing.bulk import DOCUMENTS_AT_ONCE
from indexing.optimistic_writer import FoldedRows
from sinks.digests import chunk_line, document_line
from transforms.documents.planning import document_id, is_refused, plan
from transforms.values import exact_json

if TYPE_CHECKING:
    from indexing.optimistic_writer import OptimisticWriter
    from schemas.documents import ActualDocument
    from sinks.protocol import DocumentStore, Sink, StoreAudit
    from transforms.documents.planning import DocumentSpec

WIDTH = 2
"""Characters of a document's id that name a bucket: the documents of 1 in 256 are in memory at once."""


@dataclass
class Backfilled:
    """What a look found and did."""

    documents: int = 0
    """Of the older index version that differed, or were missing."""
    brought: int = 0
    left_out: list[str] = field(default_factory=list)
    """Ids of documents that the newer one still lacks: the model refuses a text, or no configured table has such a key."""


@dataclass(frozen=True)
class Tables:
    """The tables that make documents, and the columns of their keys, in order."""

    specs: Mapping[str, DocumentSpec]
    keys: Mapping[str, Sequence[str]]

    def key_of(self, document: ActualDocument) -> str | None:
        """A row's key as the pipeline writes it; None where the store's form of it leads to no such document."""
        try:
            told = exact_json.loads(document.key)
            key = exact_json.dumps({name: told[name] for name in self.keys[document.table]})
        except (KeyError, TypeError, ValueError):
            return None
        return key if document_id(document.table, key) == document.document_id else None

    def texts_of(self, documents: Sequence[ActualDocument], store: DocumentStore) -> list[str]:
        """The first chunk of each of some documents, rendered from what the store remembers of them."""
        states = store.read([each.document_id for each in documents])
        found = []
        for each in documents:
            spec, key = self.specs.get(each.table), self.key_of(each)
            if spec and key and each.document_id in states:
                write = plan(None, states[each.document_id].state, key, spec)
                found += [chunk.chunk_text for chunk in write.chunks[:1]] if write else []
        return found


def backfill(old: Sink, new: Sink, tables: Tables, writer: OptimisticWriter) -> Backfilled:
    """Bring to an index version what it lacks of another; all that stood in that one as this began is in it, but for `left_out`.

    Run again, it looks at what differs still.
    """
    found = Backfilled()
    held, mine = (sink.bucket_checksums(WIDTH, vectors=False) for sink in (old, new))
    differing = sorted(name for name in held if held[name] != mine.get(name))
    lacking = (each for bucket in differing for each in _lacking(old, new, bucket))
    for some in batched(lacking, DOCUMENTS_AT_ONCE):
        found.documents += len(some)
        _bring(some, (old, new), tables, writer, found)
    return found


def _lacking(old: StoreAudit, new: StoreAudit, bucket: str) -> Iterator[ActualDocument]:
    """Documents of a bucket that the other index version has not, or not as new, or as new but otherwise."""
    theirs = {each.document_id: each for each in new.documents_in(bucket, WIDTH, vectors=False)}
    for mine in list(old.documents_in(bucket, WIDTH, vectors=False)):
        other = theirs.get(mine.document_id)
        if mine.name != mine.document_id or (other is not None and other.sequence > mine.sequence):
            continue
        if is_refused(mine.spec_digest) and other is not None and is_refused(other.spec_digest):
            continue
        if other is None or other.sequence < mine.sequence or _lines(other) != _lines(mine):
            yield mine


def _lines(document: ActualDocument) -> list[str]:
    return [document_line(document), *sorted(chunk_line(document.document_id, chunk) for chunk in document.chunks)]


def _bring(
    documents: Sequence[ActualDocument],
    stores: tuple[Sink, Sink],
    tables: Tables,
    writer: OptimisticWriter,
    found: Backfilled,
) -> None:
    old, new = stores
    states = old.read([each.document_id for each in documents])
    by_table: dict[str, dict[str, ActualDocument]] = defaultdict(dict)
    for each in documents:
        key = tables.key_of(each) if each.table in tables.specs else None
        if key is None:
            found.left_out.append(each.document_id)
        elif each.document_id in states:
            by_table[each.table][key] = each
    for table, rows in by_table.items():
        spec = tables.specs[table].within(writer.embedder.max_tokens)
        work = FoldedRows(spec, {key: states[row.document_id].state for key, row in rows.items()})
        before = writer.counts["writes"]
        found.left_out += [write.document_id for write in writer.write(new, work)]
        found.brought += writer.counts["writes"] - before
