"""`docs/matrix.md` says what the tests cover; a mark that cannot be read is an error, never a hole in the matrix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import matrix


def test_the_matrix_is_what_the_tests_say() -> None:
    assert matrix.paragraphs(matrix.DOCUMENT.read_text()) == matrix.paragraphs(matrix.current()), "run: make matrix"


def module(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(matrix, "ROOT", folder)
    path = folder / "test_a.py"
    path.write_text(f"import pytest\n{source}")
    return path


def test_marks_of_tests_classes_parameters_and_modules_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
pytestmark = pytest.mark.covers("oracle", "dms", "reload", "documented")
class TestMoves:
    @pytest.mark.covers(("mysql", "mariadb"), "debezium", "key change", evidence="recorded")
    def test_one(self): ...
@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.covers("mysql", "dms", "type", "live")), 2])
def test_two(n): ...
"""
    covered = matrix.covers([module(tmp_path, source, monkeypatch)])
    assert [cover[:4] + cover[5:] for cover in covered] == [
        ("mariadb", "debezium", "key change", "recorded", "test_one"),
        ("mysql", "debezium", "key change", "recorded", "test_one"),
        ("mysql", "dms", "type", "live", "test_two"),
        ("oracle", "dms", "reload", "documented", "test_one"),
        ("oracle", "dms", "reload", "documented", "test_two"),
    ]
    document = matrix.document(covered)
    assert document.count("- no test") == 5 * 2 * 8 - 4
    assert "- recorded: [test_one](../test_a.py)" in document


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('@pytest.mark.covers("postgres", "dms", "type", "live")\ndef test_a(): ...', "test_a.py:2: engine is one of"),
        (
            '@pytest.mark.covers("mysql", "dms", "type")\ndef test_a(): ...',
            "test_a.py:2: a mark has engine, capture, what, evidence",
        ),
        (
            '@pytest.mark.covers("mysql", "dms", "type", "live", "made")\ndef test_a(): ...',
            "test_a.py:2: a mark has engine, capture, what, evidence",
        ),
        ('@pytest.mark.covers(1, "dms", "type", "live")\ndef test_a(): ...', "test_a.py:2: engine is one of"),
        ('@pytest.mark.covers(ENGINE, "dms", "type", "live")\ndef test_a(): ...', "test_a.py:2: engine is one of"),
        ('MARK = pytest.mark.covers("mysql", "dms", "type", "live")', "test_a.py:2: a mark of no test"),
    ],
)
def test_a_mark_that_cannot_be_read_is_an_error(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = module(tmp_path, source, monkeypatch)
    with pytest.raises(matrix.MarkError, match=f"^{re.escape(message)}"):
        matrix.covers([path])
