"""PySpark compiled for Spark's Python workers, which `make setup` does."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from pyspark.sql import SparkSession

from tools import compiled_pyspark


def test_a_worker_of_spark_imports_what_is_compiled(spark: SparkSession) -> None:
    def file(_: int) -> str:
        return str(sys.modules["pyspark.serializers"].__file__)

    (module_file,) = spark.sparkContext.parallelize([0], 1).map(file).collect()
    assert module_file.endswith("pyspark.zip/pyspark/serializers.pyc")


def test_an_archive_is_written_twice_and_keeps_all_it_held(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a/__init__.py", "NAME = 'a'\n")
        made.writestr("a/b.txt", "text")
    for _ in range(2):
        compiled_pyspark.write(archive)
        with zipfile.ZipFile(archive) as read:
            assert sorted(read.namelist()) == ["a/__init__.py", "a/__init__.pyc", "a/b.txt"]
            assert read.read("a/b.txt") == b"text"
    printed = subprocess.run(
        [sys.executable, "-c", "import a; print(a.__file__, a.NAME)"],
        env={"PYTHONPATH": str(archive)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert printed.split() == [str(archive / "a/__init__.pyc"), "a"]
    assert list(tmp_path.iterdir()) == [archive]
