"""Which lake this is, by the id that Delta gave its table `changes` when it was made."""

from __future__ import annotations

from lake.layout import LakeLayout
from lake.storage import open_table
from schemas.errors import UnavailableError


def lake_id(root: str) -> str:
    """The id, which copies and moves of the lake keep and a new lake has not; empty where there is no lake yet.

    Raises:
        UnavailableError: the lake cannot be read.
    """
    from deltalake.exceptions import DeltaError

    try:
        table = open_table(LakeLayout(root).path("changes"))
    except (OSError, DeltaError) as error:
        raise UnavailableError(f"lake.path: the lake at {root} cannot be read ({type(error).__name__})") from None
    return str(table.metadata().id) if table is not None else ""
