"""The wheels of a Glue 6.0 job: the project's own, and what it needs beyond Glue's own packages."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(34, 4, -1)),
    *(f"manylinux{year}_x86_64" for year in ("2014", "2010", "1")),
    "linux_x86_64",
)
"""Of glibc 2.34 and what it can run (AWS Glue's guide, "Using Python libraries", appendix B; Glue runs on x86_64)."""
NOT_ON_GLUE = frozenset({"all", "onnx"})
"""Extras that are not shipped: ONNX models run from a local file."""
OF_SPARK = frozenset({"pyspark", "py4j"})
"""Spark brings them; they are on no list of Glue's packages."""
_LEFT_OUT = ("tests", "benchmarks", "tools", "build", "dist", "*.egg-info", ".*")
_DATE = (1980, 1, 1, 0, 0, 0)
"""Of each file, so that the same content is the same archive."""


def locked(name: str) -> dict[str, str]:
    """The entries of `requirements/NAME.txt`, hashes included, by canonical package name."""
    entries = re.split(r"^(?=\w)", (ROOT / f"requirements/{name}.txt").read_text(), flags=re.MULTILINE)
    return {canonicalize_name(re.split(r"[=\[]", entry)[0]): entry for entry in entries if entry.strip()}


def version_of(entry: str) -> str:
    """The version that an entry pins."""
    return entry.split("==")[1].split(maxsplit=1)[0]


def needed(pinned: Mapping[str, str], on_glue: Mapping[str, str]) -> list[str]:
    """Names of what is shipped: what Glue lacks, or has in a version that does not do. ValueError: one has no pin."""
    extras = set(distribution("ragstream").metadata.get_all("Provides-Extra") or ()) - NOT_ON_GLUE
    waiting, seen, shipped = [Requirement(f"ragstream[{','.join(sorted(extras))}]")], set[str](), set[str]()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        does = name in on_glue and requirement.specifier.contains(version_of(on_glue[name]))
        if does or name in OF_SPARK or str(requirement) in seen:
            continue
        seen.add(str(requirement))
        if name != "ragstream":
            shipped.add(name)
            if name not in pinned:
                raise ValueError(f"{name} is needed on Glue and not in requirements/base.txt.")
        for text in distribution(name).requires or ():
            required = Requirement(text)
            if required.marker is None or any(
                required.marker.evaluate({"extra": e}) for e in requirement.extras | {""}
            ):
                waiting.append(required)
    return sorted(shipped)


def collect(cache: Path, folder: Path) -> None:
    """Put all wheels and their `requirements.txt` into a folder; what was downloaded once is in `cache`."""
    pinned = locked("base")
    entries = "".join(pinned[name] for name in needed(pinned, locked("glue")))
    downloaded = cache / f"glue-wheels-{hashlib.sha256(entries.encode()).hexdigest()[:12]}"
    if not downloaded.is_dir():
        _download(entries, downloaded)
    shutil.copytree(downloaded, folder)
    _build(folder)
    wheels = (path.name.split("-") for path in sorted(folder.glob("*.whl")))
    (folder / "requirements.txt").write_text("".join(f"{name}=={version}\n" for name, version, *_ in wheels))


def _download(entries: str, downloaded: Path) -> None:
    """Fill a folder of the cache beside its place, then move it there whole."""
    downloaded.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloaded.parent) as beside:
        requirements = Path(beside) / "requirements.txt"
        requirements.write_text(entries)
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        _run(
            *("pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.13", "--abi", "cp313"),
            *(*platforms, "--dest", f"{beside}/wheels", "-r", str(requirements)),
        )
        Path(beside, "wheels").rename(downloaded)


def _build(folder: Path) -> None:
    """Build the project's wheel from a copy: nothing that an earlier build left behind gets into it."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(ROOT, f"{copy}/ragstream", ignore=shutil.ignore_patterns(*_LEFT_OUT))
        _run("build", "--wheel", "--no-isolation", "--outdir", str(folder), f"{copy}/ragstream")


def _run(*command: str) -> None:
    environment = os.environ | {"SOURCE_DATE_EPOCH": "315619200"}  # noqa: TID251 - the child's own, plus the date
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def archive(folder: Path, place: Path) -> Path:
    """Zip a folder of wheels as Glue wants it ("Using Python libraries", appendix A), under a name that its content makes.

    Glue keeps what it installed by the archive's name, so other wheels need another name.
    """
    files = sorted(path for path in folder.iterdir())
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
    target = place / f"ragstream-{distribution('ragstream').version}-{digest[:8]}.gluewheels.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as zipped:
        for path in files:
            zipped.writestr(zipfile.ZipInfo(f"wheels/{path.name}", _DATE), path.read_bytes())
    return target
