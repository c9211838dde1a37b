"""Edits an article of the kept demo at its source: python -m local_stack.demo.edit NUMBER OLD NEW."""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg

from local_stack.demo.answers import console
from local_stack.stack import STATE_DIRECTORY, Stack

_EDIT = """UPDATE public.articles SET body = replace(body, %(old)s, %(new)s), updated_at = now()
           WHERE id = %(id)s AND strpos(body, %(old)s) > 0"""


def main(arguments: list[str], folder: Path = STATE_DIRECTORY) -> int:
    """Replace words of an article's body in a commit of its own; returns 1 where no article has them, 2 for wrong arguments."""
    if len(arguments) != 3 or not arguments[0].isdecimal():
        console.print("usage: python -m local_stack.demo.edit NUMBER OLD NEW", markup=False)
        return 2
    postgres = Stack(folder).endpoints().get("postgres")
    if postgres is None:
        console.print("the demo does not run: make demo KEEP=1", markup=False)
        return 2
    number, old, new = arguments
    changed = edited(postgres["dsn"], int(number), old, new)
    console.print(f"article {number}: committed" if changed else f"article {number} does not say {old!r}", markup=False)
    return 0 if changed else 1


def edited(dsn: str, number: int, old: str, new: str) -> bool:
    """Replace words of an article's body in a commit of its own; returns whether it had them."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(_EDIT, {"id": number, "old": old, "new": new}).rowcount > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
