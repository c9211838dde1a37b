"""Which lake this is, by the id that Delta gave its table `changes` when it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lake.layout import LakeLayout
from lake.storage import open_table
from schemas.errors import UnavailableError

if TYPE_CHECKING:
    from deltalake import DeltaTable as RustTable


def lake_id(root: str) -> str:
    """The id, which copies and moves of the lake keep and a new lake has not; empty where there is no lake yet.

    Raises:
        UnavailableError: the lake cannot be read.
    """
    table = _changes(root)
    return str(table.metadata().id) if table is not None else ""


def transaction_reached(root: str, transaction: str) -> int:
    """The last batch of a transaction's id that was committed to `changes`; -1 where none was. Raises as `lake_id`."""
    table = _changes(root)
    version = table.transaction_version(transaction) if table is not None else None
    return -1 if version is None else version


def _changes(root: str) -> RustTable | None:
    from deltalake.exceptions import DeltaError

    try:
        return open_table(LakeLayout(root).path("changes"))
    except (OSError, DeltaError) as error:
        raise UnavailableError(f"lake.path: the lake at {root} cannot be read ({type(error).__name__})") from None
