"""PySpark compiled, in the archives from which Spark's Python workers import it.

    python -m tools.compiled_pyspark

Spark puts its own `pyspark.zip` and `py4j-….zip` first on the path of every worker and planner, and they hold source alone:
nothing can be cached beside it, so each process compiles it anew. This adds the compiled modules to them.
"""

from __future__ import annotations

import os
import py_compile
import tempfile
import warnings
import zipfile
from pathlib import Path


def archives() -> list[Path]:
    """The archives of this installation of Spark."""
    import pyspark

    return sorted((Path(pyspark.__path__[0]) / "python" / "lib").glob("*.zip"))


def write(archive: Path) -> None:
    """Write an archive anew, each module with its compiled form; killed, it leaves the old one or a whole one.

    Another Python than this one takes the source.
    """
    # Not in place: an installer may have linked the file from a cache that other environments share.
    new = archive.with_suffix(f".{os.getpid()}")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(new, "w") as written, tempfile.TemporaryDirectory() as folder:
        source, compiled = Path(folder) / "module.py", Path(folder) / "module.pyc"
        for entry in old.infolist():
            if entry.filename.endswith(".pyc"):
                continue
            content = old.read(entry)
            written.writestr(entry, content)
            if entry.filename.endswith(".py"):
                source.write_bytes(content)
                with warnings.catch_warnings(action="ignore"):
                    py_compile.compile(
                        str(source), str(compiled), dfile=entry.filename, doraise=True,
                        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
                    )  # fmt: skip
                written.writestr(f"{entry.filename}c", compiled.read_bytes())
    new.replace(archive)


if __name__ == "__main__":
    for archive in archives():
        write(archive)
