"""The rows that a caller may see, as conditions on columns of source tables. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.caller import Scalar


class Allowed(NamedTuple):
    """A column, or a member of a JSON column, and the values that it may have in the rows that a caller may see."""

    path: tuple[str, ...]
    values: tuple[Scalar, ...]


type AllowedRows = Mapping[str, Sequence[Allowed]]
"""By source table, what holds of each row that a caller may see; other tables have no such row."""

_PLAIN_MEMBER = re.compile(r"[a-z0-9_$ -]+", re.ASCII)


def is_navigable(path: Sequence[str]) -> bool:
    """Whether a statement can reach the member of a JSON column.

    Redshift lower-cases the names in a path unless the session says otherwise (Developer Guide, "SUPER configurations"), which a
    single statement of the Data API cannot; so only lower-case names are reached.
    """
    return all(_PLAIN_MEMBER.fullmatch(member) for member in path[1:])
