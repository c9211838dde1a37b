"""The archive of classes that `make setup` writes, and the drivers that start with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from glue_jobs.cli import main as cli
from glue_jobs.runtime.spark import jvm, session
from schemas.errors import ConfigurationError, StoppedError


def test_a_driver_has_the_archive_of_its_classes_in_memory(spark: SparkSession) -> None:
    java = spark._jvm
    assert java is not None
    process = java.java.lang.ProcessHandle.current().pid()
    assert str(session.class_archive()) in Path(f"/proc/{process}/maps").read_text()


def test_where_there_is_no_archive_a_driver_is_told_of_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "class_archive", lambda: tmp_path / "classes.jsa")
    chosen = session.settings(str(tmp_path), local=True)["spark.driver.extraJavaOptions"]
    (tmp_path / "classes.jsa").touch()
    assert "SharedArchiveFile" not in chosen
    assert str(tmp_path) in session.settings(str(tmp_path), local=True)["spark.driver.extraJavaOptions"]


@pytest.mark.usefixtures("spark")
def test_what_jvm_says_of_itself_stands_in_file_that_a_failure_names() -> None:
    path = jvm.log_file()
    assert path is not None
    assert "incubator modules" in path.read_text()
    assert str(path) in cli.spark_log_hint(StoppedError("the rebuild failed"))
    assert cli.spark_log_hint(ConfigurationError("no such table")) == ""
