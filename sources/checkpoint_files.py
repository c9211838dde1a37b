"""Small files of a query's checkpoint, on a disk or wherever Hadoop has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class CheckpointFiles:
    """The files of one folder; it need not be there yet."""

    def __init__(self, spark: SparkSession, folder: str) -> None:
        """Open it as Spark does, so that a checkpoint on S3 needs nothing else."""
        self._jvm = _jvm(spark)
        self._folder = self._jvm.org.apache.hadoop.fs.Path(folder)
        self._files = self._folder.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())  # noqa: SLF001

    def names(self) -> list[str]:
        """The names of the files there are."""
        if not self._files.exists(self._folder):
            return []
        return [str(status.getPath().getName()) for status in self._files.listStatus(self._folder)]

    def read(self, name: str) -> str | None:
        """A file's text; None when there is none."""
        path = self._path(name)
        if not self._files.exists(path):
            return None
        stream = self._files.open(path)
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def write(self, name: str, text: str) -> None:
        """Replace a file: a reader gets the old text or the new one, also after a kill."""
        uri = urlsplit(str(self._files.makeQualified(self._path(name)).toUri()))
        if uri.scheme == "file":
            _replace(Path(unquote(uri.path)), text)
            return
        stream = self._files.create(self._path(name), True)  # noqa: FBT003 - Hadoop's overwrite; on S3 one put
        try:
            stream.write(bytearray(text, "utf-8"))
        finally:
            stream.close()

    def _path(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(self._folder, name)


def _replace(file: Path, text: str) -> None:
    """Replace a file as a whole: Hadoop overwrites in place. Its checksum file would be that of the old text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    new.write_text(text, encoding="utf-8")
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    new.replace(file)


def _jvm(spark: SparkSession) -> Any:
    """PySpark has no other access to Hadoop's file systems."""
    return spark.sparkContext._jvm  # noqa: SLF001
