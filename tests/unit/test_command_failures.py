"""What a command that runs Spark says when it dies: what failed and how to go on, and nothing of a row."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from glue_jobs.runtime.failures import without_content, wrap_failures
from reader.failures import reportable
from schemas.errors import StoppedError, UnavailableError


def test_an_unexpected_error_is_named_without_what_it_quotes() -> None:
    with pytest.raises(StoppedError) as caught, wrap_failures("the rebuild of x", "Run it again."):
        raise ValueError("row text")
    assert "ValueError" in str(caught.value)
    assert "Run it again." in str(caught.value)
    assert "row text" not in str(caught.value)


def test_an_error_of_ours_comes_out_of_a_workers_traceback_as_itself() -> None:
    traceback_text = "Traceback (most recent call last):\nschemas.errors.UnavailableError: sink x does not answer\n"
    with (
        pytest.raises(UnavailableError, match="sink x does not answer"),
        wrap_failures("the rebuild of x", "Run it again."),
    ):
        raise RuntimeError(traceback_text)


def test_jvm_that_does_not_start_says_why_and_where_its_lines_are(tmp_path: Path) -> None:
    program = (
        f"from glue_jobs.runtime.spark.session import open_session; open_session('x', checkpoint={str(tmp_path)!r})"
    )
    environment = os.environ | {"JAVA_HOME": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert "ConfigurationError: Spark's JVM does not start " in done.stderr
    assert "/nowhere/bin/java: No such file or directory" in done.stderr
    assert str(tmp_path / "spark.log") in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("missing", "arguments", "hint"),
    [
        ("pyspark", ["rebuild", "c.yaml", "x"], 'pip install "ragstream[spark]"'),
        ("pyarrow", ["status", "c.yaml"], 'pip install "ragstream[lake]"'),
        ("boto3", ["check", "s3://bucket/c.yaml"], 'pip install "ragstream[aws]"'),
        ("boto3", ["stack", "status"], "run `make setup` in this checkout"),
        ("local_stack", ["stack", "--help"], "run `make setup` in a checkout"),
    ],
)
def test_a_package_that_is_not_installed_is_said_with_what_installs_it(
    missing: str, arguments: list[str], hint: str
) -> None:
    """As after `pip install ragstream` alone: Python takes a module that stands as None for one that is not there."""
    program = f"import sys; sys.modules[{missing!r}] = None; from glue_jobs.cli.main import main; main({arguments})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: the package {missing} is not installed: ")
    assert hint in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_where_a_reader_failed_is_named_without_what_stands_beside_it() -> None:
    with pytest.raises(ValueError, match="row") as died:
        raise ValueError("a row's text")
    crossed = RuntimeError(f"Traceback\nreader.messages.ReaderFailedError: {reportable(died.value)}\na row's text")
    place = r"ValueError at test_command_failures\.py:\d+ test_where_a_reader_\w+"
    assert re.fullmatch(rf"RuntimeError, in a reader: {place}", without_content(crossed))
    assert without_content(RuntimeError("ReaderFailedError: a row's text")) == "RuntimeError"
