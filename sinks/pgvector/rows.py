"""A document row as PostgreSQL stores it; DocumentDB stores the same columns. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from schemas.documents import DocumentWrite
from transforms.documents.languages import mark_of
from transforms.filters.terms import terms_of
from transforms.fold import RowState, encode, restore
from transforms.values import exact_json
from transforms.values.times import moment


def document_row(write: DocumentWrite) -> dict[str, Any]:
    """The parameters of a document row's statement; the key never changes and is a parameter of the first write alone.

    `state` is the fold's state without texts; those have a column of their own, which a metadata change leaves alone. Both
    are ASCII JSON, so that U+0000 and lone surrogates survive.
    """
    state = encode(write.state)
    values = state.pop("v", {})
    texts = {name: value for name, value in values.items() if name not in write.metadata}
    state["v"] = {name: value for name, value in values.items() if name in write.metadata}
    micros = write.state.commit_time_us
    changed = write.texts_changed or not write.base_revision
    first = {} if write.base_revision else {"key": exact_json.storable(exact_json.loads(write.key))}
    return first | {
        "document_id": write.document_id,
        "table": write.table,
        "sequence": write.state.newest,
        "revision": write.base_revision or write.next_revision(),
        "live": write.live,
        "metadata": exact_json.storable(write.metadata),
        "metadata_terms": terms_of(write.metadata, write.unresolved),
        "state": exact_json.dumps(state),
        "texts": exact_json.dumps(texts) if texts and changed else None,
        "texts_changed": changed,
        "recipe": write.spec_digest,
        "pending": list(write.unresolved),
        "commit_time": None if micros is None else moment(micros),
    }


def chunk_rows(write: DocumentWrite) -> list[dict[str, Any]]:
    """The parameters of the statement of each added chunk; `mark` and `language` are of one in another language alone."""
    shared = {"document_id": write.document_id, "language": write.language, "mark": mark_of(write.language)}
    return [shared | asdict(chunk) for chunk in write.added]


def stored_state(state: str, texts: str | None) -> RowState:
    """The fold's state of a document row."""
    document = exact_json.loads(state)
    if texts:
        document["v"] |= exact_json.loads(texts)
    return restore(document)
