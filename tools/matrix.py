"""The matrix of what is tested: engine, capture, and what a source does, each with the tests that cover it.

    python -m tools.matrix

writes `docs/matrix.md` from the marks `@pytest.mark.covers(engine, capture, what, evidence)`. Test modules are parsed and
never imported, so a mark's arguments are literals: text, or a tuple of texts for several cells. A mark stands before a test or
its class, in one of its parameters' `marks`, or in the module's `pytestmark`.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/matrix.md"
AXES = {
    "engine": ("postgresql", "mysql", "mariadb", "sqlserver", "oracle"),
    "capture": ("debezium", "dms"),
    "what": ("type", "snapshot", "delete", "key change", "truncate", "large value", "drift", "reload"),
    "evidence": ("live", "recorded", "made", "documented"),
}
_ENGINES = dict(zip(AXES["engine"], ("PostgreSQL", "MySQL", "MariaDB", "SQL Server", "Oracle"), strict=True))
_CAPTURES = {"debezium": "Debezium", "dms": "DMS"}
_HEAD = """\
# What is tested

Made by `make matrix` from the marks `@pytest.mark.covers(engine, capture, what, evidence)` on the tests.

- *live*: a server of that engine runs in the test. DMS itself cannot run here: a stand-in reads the engine's own log.
- *recorded*: events that a capture of a server wrote.
- *made*: records that a capture's own classes wrote from values, without a server.
- *documented*: records written by hand in the form that documents, or a capture's source, describe.

A cell that shows – has no test.
"""


class Cover(NamedTuple):
    """One cell that one test covers."""

    engine: str
    capture: str
    what: str
    evidence: str
    module: str
    """Path from the root."""
    test: str


class MarkError(ValueError):
    """A mark that cannot be read: where it stands, and what it should be."""


def covers(paths: Iterable[Path]) -> list[Cover]:
    """What test modules cover, sorted; MarkError for a mark that stands elsewhere than on a test, or names an unknown cell."""
    return sorted({cover for path in paths for cover in _of_module(path)})


def _of_module(path: Path) -> Iterator[Cover]:
    source = path.read_text()
    if "mark.covers" not in source:
        return
    module, tree = path.relative_to(ROOT).as_posix(), ast.parse(source)
    read: set[ast.AST] = set()
    marks = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    for test, nodes in _tests(tree.body, marks):
        for call in _calls(nodes):
            read.add(call)
            yield from (Cover._make((*cell, module, test)) for cell in _cells(call, module))
    for call in _calls([tree]):
        if call not in read:
            raise MarkError(
                f"{module}:{call.lineno}: a mark of no test. Put it before the test, its class, or in pytestmark."
            )


def _tests(body: list[ast.stmt], marks: list[ast.expr]) -> Iterator[tuple[str, list[ast.expr]]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _tests(node.body, [*marks, *node.decorator_list])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.name, [*marks, *node.decorator_list]


def _calls(nodes: Iterable[ast.AST]) -> Iterator[ast.Call]:
    for node in itertools.chain.from_iterable(map(ast.walk, nodes)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.covers":
            yield node


def _cells(call: ast.Call, module: str) -> Iterator[tuple[str, ...]]:
    arguments = dict(zip(AXES, call.args, strict=False)) | {word.arg: word.value for word in call.keywords if word.arg}
    if arguments.keys() != AXES.keys() or len(call.args) + len(call.keywords) != len(AXES):
        raise MarkError(f"{module}:{call.lineno}: a mark has {', '.join(AXES)}")
    choices: list[tuple[str, ...]] = []
    for axis, allowed in AXES.items():
        try:
            value = ast.literal_eval(arguments[axis])
            names = (value,) if isinstance(value, str) else tuple(value)
        except (TypeError, ValueError):
            names = ()
        if not names or any(name not in allowed for name in names):
            raise MarkError(f"{module}:{call.lineno}: {axis} is one of {', '.join(allowed)}, or a tuple of them")
        choices.append(names)
    return itertools.product(*choices)


def document(covered: list[Cover]) -> str:
    """The matrix as Markdown: a table of the evidence, then each cell's tests, a line each.

    Each cell is a paragraph of its own, whose lines have no order: two branches that add tests merge (`merge=union`).
    """
    tests: dict[tuple[str, str, str], list[Cover]] = {}
    for cover in covered:
        tests.setdefault(cover[:3], []).append(cover)
    lines = [_HEAD, "<table>", f"<tr><th></th>{''.join(f'<th>{what}</th>' for what in AXES['what'])}</tr>"]
    for engine, capture in itertools.product(AXES["engine"], AXES["capture"]):
        lines.append(f"<tr><th>{_ENGINES[engine]}, {_CAPTURES[capture]}</th><td>")
        cells = [{cover.evidence for cover in tests.get((engine, capture, what), ())} for what in AXES["what"]]
        lines.append("\n\n</td><td>\n\n".join(_evidence(cell) for cell in cells).join(("\n", "\n\n</td></tr>")))
    lines.append("</table>")
    for engine, capture in itertools.product(AXES["engine"], AXES["capture"]):
        lines.append(f"\n## {_ENGINES[engine]} through {_CAPTURES[capture]}")
        for what in AXES["what"]:
            cell = tests.get((engine, capture, what), [])
            lines.append(f"\n**{what}**\n")
            lines += [f"- {cover.evidence}: [{cover.test}](../{cover.module})" for cover in cell] or ["- no test"]
    return "\n".join(lines) + "\n"


def _evidence(cell: set[str]) -> str:
    return "\n".join(kind for kind in AXES["evidence"] if kind in cell) or "–"


def paragraphs(text: str) -> list[set[str]]:
    """A document in the form in which two are compared: a merge may leave the lines of a cell in any order."""
    return [set(paragraph.splitlines()) for paragraph in text.split("\n\n")]


def current() -> str:
    """The document that the tests of this tree make."""
    return document(covers(sorted((ROOT / "tests").rglob("test_*.py"))))


if __name__ == "__main__":
    DOCUMENT.write_text(current())
