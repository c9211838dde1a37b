"""The demo's content: the helpdesk of a made-up company, and questions with the rows that answer them.

`articles.jsonl` and `tickets.jsonl` hold one row a line, `questions.jsonl` one labelled question a line,
`follow_ups.jsonl` one labelled follow-up behind a question.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg import sql

_FOLDER = Path(__file__).parent
TABLES = ("articles", "tickets")


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the rows any of which answers it; without rows an assistant must abstain.

    `kind` says which search finds the rows: `plain` by meaning, `rare` (codes, part and order numbers) by words, `none`: there
    are none. `answer_contains` has phrases of the rows, any of which proves that an answer used them.
    """

    query_id: str
    query: str
    kind: Literal["plain", "rare", "none"]
    expected: tuple[tuple[str, int], ...]
    answer_contains: tuple[str, ...]


class FollowUp(NamedTuple):
    """A labelled follow-up: a question behind another one, the articles that answer it, and phrases that prove it."""

    first: str
    then: str
    kind: Literal["ellipsis", "pronoun", "bare", "independent"]
    """`independent`: it needs nothing of the first."""
    expected: tuple[int, ...]
    answer_contains: tuple[str, ...]


def follow_ups() -> list[FollowUp]:
    """Return the labelled follow-ups."""
    return [
        FollowUp(line["first"], line["then"], line["kind"], tuple(line["expected"]), tuple(line["answer_contains"]))
        for line in map(json.loads, _lines("follow_ups"))
    ]


def rows(table: str) -> list[dict[str, Any]]:
    """Return the rows of `articles` or `tickets`, the same in every process and on every day."""
    return [json.loads(line) for line in _lines(table)]


def questions() -> list[Question]:
    """Return the labelled questions."""
    return [
        Question(
            fields["query_id"],
            fields["query"],
            fields["kind"],
            tuple((row["table"], row["id"]) for row in fields["expected"]),
            tuple(fields["answer_contains"]),
        )
        for fields in map(json.loads, _lines("questions"))
    ]


def seed(dsn: str) -> dict[str, int]:
    """Create the two tables with the rows of the files, in one transaction; returns the number of rows by table.

    Equal rows are not written again, so a capture sees no change of them.
    """
    counts = {}
    with psycopg.connect(dsn) as connection:
        connection.execute((_FOLDER / "schema.sql").read_bytes())
        for table in TABLES:
            wanted = rows(table)
            connection.cursor().executemany(_upsert(table, list(wanted[0])), [tuple(row.values()) for row in wanted])
            others = sql.SQL("DELETE FROM public.{} WHERE id <> ALL(%s)").format(sql.Identifier(table))
            connection.execute(others, ([row["id"] for row in wanted],))
            counts[table] = len(wanted)
    return counts


def _upsert(table: str, columns: list[str]) -> sql.Composed:
    names = [sql.Identifier(column) for column in columns]
    return sql.SQL(
        "INSERT INTO public.{table} AS t ({names}) VALUES ({places}) ON CONFLICT (id) DO UPDATE SET ({names}) = ROW"
        "(EXCLUDED.*) WHERE t IS DISTINCT FROM EXCLUDED"
    ).format(
        table=sql.Identifier(table),
        names=sql.SQL(", ").join(names),
        places=sql.SQL(", ").join(sql.Placeholder() for _ in names),
    )


def _lines(name: str) -> list[str]:
    return (_FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
