"""How a document's head is written down in PostgreSQL."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from transforms import exact_json
from transforms.fold import RowState, encode, restore

if TYPE_CHECKING:
    from schemas.documents import DocumentWrite

_WIDEST_EXPONENT = 1000
"""jsonb holds numbers as numeric (131,072 digits before the point); a wider one is kept as text."""


def head_row(write: DocumentWrite) -> dict[str, Any]:
    """The parameters of a head's statement.

    `state` is all that the fold remembers but the texts; those stand in a column of their own, which a metadata change
    does not touch. Both are JSON in ASCII, so that U+0000 and lone surrogates survive.
    """
    state = encode(write.state)
    values = state.pop("v", {})
    texts = {name: value for name, value in values.items() if name not in write.metadata}
    state["v"] = {name: value for name, value in values.items() if name in write.metadata}
    micros = write.state.commit_time_us
    return {
        "document_id": write.document_id,
        "table": write.table,
        "key": json_column(exact_json.loads(write.key)),
        "sequence": write.state.newest,
        "revision": write.base_revision,
        "live": write.live,
        "metadata": json_column(write.metadata),
        "state": exact_json.dumps(state),
        "texts": exact_json.dumps(texts) if texts else None,
        "recipe": write.recipe,
        "pending": list(write.pending),
        "commit_time": None if micros is None else dt.datetime.fromtimestamp(micros / 1e6, dt.UTC),
    }


def stored_state(state: str, texts: str | None) -> RowState:
    """The state a head holds."""
    document = exact_json.loads(state)
    if texts:
        document["v"] |= exact_json.loads(texts)
    return restore(document)


def json_column(value: Any) -> str:
    """JSON that PostgreSQL's jsonb takes: no U+0000, no lone surrogate, no number beyond numeric."""
    return exact_json.dumps(_plain(value))


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return exact_json.printable(value)
    if isinstance(value, Decimal) and (not value.is_finite() or abs(value.adjusted()) > _WIDEST_EXPONENT):
        return str(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {exact_json.printable(name): _plain(item) for name, item in value.items()}
    return value
