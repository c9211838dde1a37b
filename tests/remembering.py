"""A process that takes turns until it is killed: `python -m tests.remembering CONFIGURATION SESSION [stay]`.

It prints the number of each turn once that is answered; with `stay`, `claimed` in the middle of its first turn, and waits there.
"""

from __future__ import annotations

import json
import sys

from pydantic import TypeAdapter

from memory import MemoryConfig, opened

USER = "ada"


def main(configuration: str, session: str, *stay: str) -> None:
    adapter: TypeAdapter[MemoryConfig] = TypeAdapter(MemoryConfig)
    with opened(adapter.validate_python(json.loads(configuration))) as memory:
        for number in range(10_000):
            with memory.conversations.turn(USER, session, f"question {number}", turn_id=f"t{number}") as turn:
                if stay:
                    sys.stdout.write("claimed\n")
                    sys.stdout.flush()
                    sys.stdin.read()
                memory.conversations.answer(turn, {"answer": f"answer {number}"}, {})
            sys.stdout.write(f"{turn.number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
