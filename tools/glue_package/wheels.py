"""The wheels of a Glue 6.0 job: the project's own, and those that it needs and Glue lacks."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(34, 4, -1)),
    *(f"manylinux{year}_x86_64" for year in ("2014", "2010", "1")),
    "linux_x86_64",
)
"""Of glibc 2.34 and what it can run (AWS Glue's guide, "Using Python libraries", appendix B; Glue runs on x86_64)."""
OF_SPARK = {"pyspark", "py4j"}
"""Spark brings them; they are on no list of Glue's packages."""
_DATE = (1980, 1, 1, 0, 0, 0)
"""Of each file, so that the same content is the same archive."""


def locked(name: str) -> dict[str, str]:
    """The entries of `requirements/NAME.txt`, hashes included, by package name."""
    entries = re.split(r"^(?=\w)", (ROOT / f"requirements/{name}.txt").read_text(), flags=re.MULTILINE)
    return {re.split(r"[=\[]", entry)[0]: entry for entry in entries if entry.strip()}


def collect(cache: Path, folder: Path) -> None:
    """Put the wheels that Glue lacks beside the project's own, and list all in a `requirements.txt`; `cache` keeps downloads."""
    entries = "".join(entry for name, entry in locked("base").items() if name not in locked("glue").keys() | OF_SPARK)
    downloaded = cache / f"glue-wheels-{hashlib.sha256(entries.encode()).hexdigest()[:12]}"
    if not downloaded.is_dir():
        _download(entries, downloaded)
    shutil.copytree(downloaded, folder, dirs_exist_ok=True)
    wheels = (path.name.split("-") for path in sorted(folder.glob("*.whl")))
    (folder / "requirements.txt").write_text("".join(f"{name}=={version}\n" for name, version, *_ in wheels))


def _download(entries: str, downloaded: Path) -> None:
    """Fill a folder of the cache beside its place, then move it there whole."""
    downloaded.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloaded.parent) as beside:
        requirements = Path(beside) / "requirements.txt"
        requirements.write_text(entries)
        platforms = [f"--platform={platform}" for platform in PLATFORMS]
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
             "--only-binary=:all:", "--implementation=cp", "--python-version=3.13", "--abi=cp313", *platforms,
             f"--dest={beside}/wheels", f"--requirement={requirements}"],
            check=True,
        )  # fmt: skip
        try:
            Path(beside, "wheels").rename(downloaded)
        except OSError:
            if not downloaded.is_dir():  # else another process was faster: its files have the same hashes
                raise


def archive(folder: Path, place: Path) -> Path:
    """Zip a folder of wheels as Glue wants it ("Using Python libraries", appendix A), under a name that its content makes.

    Glue keeps what it installed by the archive's name, so other wheels need another name.
    """
    files = sorted(folder.iterdir())
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
    (project,) = folder.glob("ragstream-*.whl")
    target = place / f"{'-'.join(project.name.split('-')[:2])}-{digest[:8]}.gluewheels.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as zipped:
        for path in files:
            zipped.writestr(zipfile.ZipInfo(f"wheels/{path.name}", _DATE), path.read_bytes())
    return target
