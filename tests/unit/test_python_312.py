"""The pure rooms with the wheel's packages, on Python 3.12 as Managed Flink has it; ruff and mypy hold the product to 3.12."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "pure" / "bin" / "python"
PURE = {"schemas", "transforms", "indexing", "embeddings"}
BESIDE_THEM = {
    "lake.history.current", "lake.tables.observed_types", "sinks.protocol", "sources.files.recorded", "sources.kinesis.offsets",
    "sources.positions",
}  # fmt: skip
"""Modules of other rooms that their tests import; none has a client."""
PACKAGES = {"hypothesis", "numpy", "orjson", "pydantic", "pytest", "semantic_text_splitter", "simplejson"}


def imported(path: Path) -> set[str]:
    """The modules that a module imports when it is imported."""
    statements = ast.parse(path.read_text()).body
    names = {alias.name for statement in statements if isinstance(statement, ast.Import) for alias in statement.names}
    return names | {statement.module or "" for statement in statements if isinstance(statement, ast.ImportFrom)}


def is_pure(path: Path) -> bool:
    """Whether a test needs the pure rooms alone, and packages that the wheel always brings."""
    names = imported(path) - BESIDE_THEM
    shared = {ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("tests.")}
    rooms = {name.partition(".")[0] for name in names} - {"tests", *sys.stdlib_module_names, *PACKAGES}
    return rooms <= PURE and all(map(is_pure, shared))


def version_of(environment: Path) -> str:
    """Of its Python: `make setup` takes 3.12 where the machine has one, and 3.13 elsewhere."""
    config = environment / "pyvenv.cfg"
    version = re.search(r"^version = (\d+\.\d+)", config.read_text() if config.exists() else "", re.MULTILINE)
    return version[1] if version else "none"


def test_lint_and_types_are_for_the_oldest_python_that_installs() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    oldest = settings["project"]["requires-python"].removeprefix(">=")
    assert settings["tool"]["mypy"]["python_version"] == oldest == "3.12"
    assert settings["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"


@pytest.mark.slow
@pytest.mark.parametrize("python", [PYTHON], ids=[f"python {version_of(PYTHON.parents[1])}"])
def test_the_pure_rooms_pass_their_tests_with_the_wheels_packages(python: Path) -> None:
    assert python.exists(), "`make setup` makes the environment of requirements/pure.txt"
    folder = Path(__file__).parent
    chosen = [path for path in sorted(folder.glob("test_*.py")) if is_pure(path) and path.name != Path(__file__).name]
    assert len(chosen) > 10
    command: list[str | Path] = [
        python,
        "-m",
        "pytest",
        "--quiet",
        "--confcutdir",
        folder,
        "-p",
        "no:cacheprovider",
        *chosen,
    ]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
