"""One index version of a store backfilled from another, without lake and Spark.

Rows are joined, not copied, and written under the guard, so live writers may go on. What a writer did before the new version
was announced is in the old one before this compares them (`indexing.versions.every_version`); later writes go to both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import batched

from indexing.bulk import DOCUMENTS_AT_ONCE
from indexing.optimistic_writer import FoldedRows, OptimisticWriter
from schemas.documents import ActualDocument
from sinks.digests import chunk_line, document_line
from sinks.protocol import DocumentStore, Sink, StoreAudit
from transforms.documents.planning import DocumentSpec, document_id, is_refused, plan
from transforms.values import exact_json

WIDTH = 2
"""Characters of a document's id that name a bucket: 1 in 256 of the documents is in memory at once."""


@dataclass
class Backfilled:
    """The result of a backfill."""

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
        """A row's key as the pipeline writes it; None if the stored form is no key of that document."""
        try:
            columns = exact_json.loads(document.key)
            key = exact_json.dumps({name: columns[name] for name in self.keys[document.table]})
        except (KeyError, TypeError, ValueError):
            return None
        return key if document_id(document.table, key) == document.document_id else None

    def texts_of(self, documents: Sequence[ActualDocument], store: DocumentStore) -> list[str]:
        """The first chunk of each document, rendered from its stored state."""
        states = store.read([document.document_id for document in documents])
        texts = []
        for document in documents:
            spec, key = self.specs.get(document.table), self.key_of(document)
            if spec and key and document.document_id in states:
                write = plan(None, states[document.document_id].state, key, spec)
                texts += [chunk.chunk_text for chunk in write.chunks[:1]] if write else []
        return texts


def backfill(old: Sink, new: Sink, tables: Tables, writer: OptimisticWriter) -> Backfilled:
    """Bring the documents of an index version to a newer one: all that the old one had as this began, but for `left_out`.

    Run again, it compares again, and writes what differs still.
    """
    result = Backfilled()
    wanted, present = (sink.bucket_checksums(WIDTH, vectors=False) for sink in (old, new))
    differing = sorted(name for name in wanted if wanted[name] != present.get(name))
    lacking = (document for bucket in differing for document in _lacking(old, new, bucket))
    for documents in batched(lacking, DOCUMENTS_AT_ONCE):
        result.documents += len(documents)
        _bring(documents, (old, new), tables, writer, result)
    return result


def _lacking(old: StoreAudit, new: StoreAudit, bucket: str) -> Iterator[ActualDocument]:
    """Documents of a bucket that the new index version lacks, or has older, or has otherwise at the same sequence."""
    present = {document.document_id: document for document in new.documents_in(bucket, WIDTH, vectors=False)}
    for document in list(old.documents_in(bucket, WIDTH, vectors=False)):
        other = present.get(document.document_id)
        if document.name != document.document_id or (other is not None and other.sequence > document.sequence):
            continue
        if is_refused(document.spec_digest) and other is not None and is_refused(other.spec_digest):
            continue
        if other is None or other.sequence < document.sequence or _lines(other) != _lines(document):
            yield document


def _lines(document: ActualDocument) -> list[str]:
    return [document_line(document), *sorted(chunk_line(document.document_id, chunk) for chunk in document.chunks)]


def _bring(
    documents: Sequence[ActualDocument],
    stores: tuple[Sink, Sink],
    tables: Tables,
    writer: OptimisticWriter,
    result: Backfilled,
) -> None:
    old, new = stores
    states = old.read([document.document_id for document in documents])
    by_table: dict[str, dict[str, ActualDocument]] = defaultdict(dict)
    for document in documents:
        key = tables.key_of(document) if document.table in tables.specs else None
        if key is None:
            result.left_out.append(document.document_id)
        elif document.document_id in states:
            by_table[document.table][key] = document
    for table, rows in by_table.items():
        spec = tables.specs[table].within(writer.vectors.embedder.max_tokens)
        work = FoldedRows(spec, {key: states[row.document_id].state for key, row in rows.items()})
        before = writer.counts["writes"]
        result.left_out += [write.document_id for write in writer.write(new, work)]
        result.brought += writer.counts["writes"] - before
