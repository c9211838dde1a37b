"""What a store holds beside what the model says, without a value or a key: rows are named by their events. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converge.histories import End, History

type Same = Callable[[str, Any, Any], bool]
"""Whether a column's value, as the model has it, is what the store shows."""


@dataclass(frozen=True)
class Failure:
    """A history that ended otherwise in a store."""

    history: History
    lane: str
    differences: tuple[str, ...]
    alone: bool = True
    """Whether it fails by itself; else only among the other histories of its run."""


def equal(_column: str, wanted: Any, actual: Any) -> bool:
    """Equality of canonical values."""
    return bool(wanted == actual) and isinstance(wanted, bool) == isinstance(actual, bool)


def differences(
    end: End, actual: Mapping[str, Mapping[str, Any]], same: Same = equal, columns: frozenset[str] | None = None
) -> Iterator[str]:
    """What is wrong with the rows, by key, that a store shows of a history; `columns` are those it has, all by default."""
    for key in sorted(end.rows.keys() - actual.keys()):
        yield f"{end.name(key)} is missing"
    for key in sorted(actual.keys() - end.rows.keys()):
        yield f"{end.name(key)} should not be there"
    for key in sorted(end.rows.keys() & actual.keys()):
        row, stored = end.rows[key], actual[key]
        shown = row.shown if columns is None else {name: v for name, v in row.shown.items() if name in columns}
        wrong = {name for name, value in shown.items() if not same(name, value, stored.get(name))}
        wrong |= {n for n, v in stored.items() if v is not None and n not in row.shown and not row.is_pending(n)}
        if wrong:
            yield f"{end.name(key)} differs in {', '.join(sorted(wrong))}"
