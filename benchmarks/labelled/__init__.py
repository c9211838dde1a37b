"""Labelled questions beside the helpdesk's, about 160 rows of eight made-up organisations.

For each row: a question in its own words, one that shares no word with it, and an edit of the value that both ask for. Beside
them questions that no row answers, near and far ones. Four organisations are for tuning, four are held out: no figure of
those was tuned on them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_FOLDER = Path(__file__).parent

type Kind = Literal["own", "paraphrase", "near", "far"]
type Half = Literal["tune", "held_out"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A question, and the rows that answer it; none for `near` and `far`."""

    query: str
    kind: Kind
    half: Half
    expected: frozenset[tuple[str, int]]
    answer: str
    """The phrase of the row that answers it."""


QUESTIONS = _FOLDER / "questions.jsonl"
"""Golden questions, as `ragstream evaluate` reads them."""


def questions() -> list[Labelled]:
    """Return the labelled questions."""
    return [
        Labelled(
            fields["query"],
            fields["kind"],
            fields["set"],
            frozenset((row["table"], row["key"]["id"]) for row in fields["expected"]),
            "".join(fields["answer_contains"]),
        )
        for fields in map(json.loads, QUESTIONS.read_text(encoding="utf-8").splitlines())
    ]


def rows() -> dict[str, list[dict[str, Any]]]:
    """Return the rows by table: `id`, `title`, `body`."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in _all():
        tables.setdefault(row["table"], []).append({name: row[name] for name in ("id", "title", "body")})
    return tables


def edits() -> dict[tuple[str, int], tuple[str, str]]:
    """Return for each row the phrase that an edit replaces, and the new one."""
    return {(row["table"], row["id"]): (row["edit"][0], row["edit"][1]) for row in _all()}


def edited() -> dict[str, list[dict[str, Any]]]:
    """Return the rows after their edits."""
    changes = edits()
    return {
        table: [row | {"body": row["body"].replace(*changes[table, row["id"]])} for row in table_rows]
        for table, table_rows in rows().items()
    }


def _all() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (_FOLDER / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
