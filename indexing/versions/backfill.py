"""Whether one generation of a store holds all that another one does, and what it lacks brought over: no lake, no Spark.

Rows are joined, not copied, and written under the guard, so live writers may go on. What a writer had done before a generation
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
from sinks.digests import head_line, held_line
from transforms.documents.planning import document_id, is_refused, plan
from transforms.values import exact_json

if TYPE_CHECKING:
    from indexing.optimistic_writer import Rounds
    from schemas.documents import HeldDocument
    from sinks.protocol import Sink
    from transforms.documents.planning import Recipe

WIDTH = 2
"""Characters of a document's id that name a bucket: the documents of 1 in 256 are in memory at once."""


@dataclass
class Covered:
    """What a look found and did."""

    documents: int = 0
    """Of the older generation that differed, or were missing."""
    brought: int = 0
    left_out: list[str] = field(default_factory=list)
    """Ids of documents that the newer one still lacks: the model refuses a text, or no configured table has such a key."""


@dataclass(frozen=True)
class Tables:
    """The tables that make documents, and the columns of their keys, in order."""

    recipes: Mapping[str, Recipe]
    keys: Mapping[str, Sequence[str]]

    def key_of(self, document: HeldDocument) -> str | None:
        """A row's key as the pipeline writes it; None where the store's form of it leads to no such document."""
        try:
            told = exact_json.loads(document.key)
            key = exact_json.dumps({name: told[name] for name in self.keys[document.table]})
        except (KeyError, TypeError, ValueError):
            return None
        return key if document_id(document.table, key) == document.document_id else None

    def texts_of(self, documents: Sequence[HeldDocument], store: Sink) -> list[str]:
        """The first chunk of each of some documents, rendered from what the store remembers of them."""
        states = store.read([each.document_id for each in documents])
        found = []
        for each in documents:
            recipe, key = self.recipes.get(each.table), self.key_of(each)
            if recipe and key and each.document_id in states:
                write = plan(None, states[each.document_id].state, key, recipe)
                found += [chunk.chunk_text for chunk in write.chunks[:1]] if write else []
        return found


def cover(old: Sink, new: Sink, tables: Tables, rounds: Rounds) -> Covered:
    """Bring to a generation what it lacks of another; all that stood in that one as this began is in it, but for `left_out`.

    Run again, it looks at what differs still.
    """
    found = Covered()
    held, mine = (sink.bucket_checksums(WIDTH, vectors=False) for sink in (old, new))
    differing = sorted(name for name in held if held[name] != mine.get(name))
    lacking = (each for bucket in differing for each in _lacking(old, new, bucket))
    for some in batched(lacking, DOCUMENTS_AT_ONCE, strict=False):
        found.documents += len(some)
        _bring(some, (old, new), tables, rounds, found)
    return found


def _lacking(old: Sink, new: Sink, bucket: str) -> Iterator[HeldDocument]:
    """Documents of a bucket that the other generation has not, or not as new, or as new but otherwise."""
    theirs = {each.document_id: each for each in new.documents_in(bucket, WIDTH, vectors=False)}
    for mine in list(old.documents_in(bucket, WIDTH, vectors=False)):
        other = theirs.get(mine.document_id)
        if mine.name != mine.document_id or (other is not None and other.sequence > mine.sequence):
            continue
        if is_refused(mine.recipe) and other is not None and is_refused(other.recipe):
            continue
        if other is None or other.sequence < mine.sequence or _lines(other) != _lines(mine):
            yield mine


def _lines(document: HeldDocument) -> list[str]:
    return [head_line(document), *sorted(held_line(document.document_id, chunk) for chunk in document.chunks)]


def _bring(
    documents: Sequence[HeldDocument], stores: tuple[Sink, Sink], tables: Tables, rounds: Rounds, found: Covered
) -> None:
    old, new = stores
    states = old.read([each.document_id for each in documents])
    by_table: dict[str, dict[str, HeldDocument]] = defaultdict(dict)
    for each in documents:
        key = tables.key_of(each) if each.table in tables.recipes else None
        if key is None:
            found.left_out.append(each.document_id)
        elif each.document_id in states:
            by_table[each.table][key] = each
    for table, rows in by_table.items():
        recipe = tables.recipes[table].within(rounds.embedder.max_tokens)
        work = FoldedRows(recipe, {key: states[row.document_id].state for key, row in rows.items()})
        before = rounds.counts["writes"]
        found.left_out += [write.document_id for write in rounds.write(new, work)]
        found.brought += rounds.counts["writes"] - before
