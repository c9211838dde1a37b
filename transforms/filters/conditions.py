"""A condition on one metadata column, or on a member of a JSON column, typed. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

type Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "is null", "is not null"]

type Kind = Literal["b", "n", "s", "h", "t", "c"]
"""Boolean, number, text, long text (equality alone), moment (date or time stamp), time of day."""


class Value(NamedTuple):
    """A value to compare with: its kind, and its ordered text."""

    kind: Kind
    key: str


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a column with values; it holds if it holds for any of them, `!=` if for none an equality would.

    NULL, an absent column and an unresolved one satisfy no comparison. On an array a comparison holds if it holds for one of the
    elements; `!=` if no element is equal. Values may be claims, and are not shown.
    """

    path: tuple[str, ...]
    """The column, then names of members of its JSON."""
    operator: Operator
    values: tuple[Value, ...] = field(default=(), repr=False)
