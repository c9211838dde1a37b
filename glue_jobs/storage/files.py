"""Small files of a checkpoint, on a disk or on S3; every call raises UnavailableError when S3 does not answer."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lake.storage import arrow_files
from schemas.errors import UnavailableError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_CODE = re.compile(r"AWS Error (\w+)")


def is_remote(location: str) -> bool:
    """Whether a location is a URI rather than a folder of this machine."""
    return "://" in location


def write(location: str, text: str) -> None:
    """Replace a file atomically: a reader sees the old text or the new one."""
    if is_remote(location):
        with _s3(location) as (system, path), system.open_output_stream(path) as stream:
            stream.write(text.encode())
        return
    file = Path(location)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(file)


def read(location: str) -> str | None:
    """The text of a file, None when there is none."""
    try:
        if is_remote(location):
            with _s3(location) as (system, path), system.open_input_stream(path) as stream:
                return bytes(stream.read()).decode()
        return Path(location).read_text()
    except FileNotFoundError:
        return None


def remove(location: str) -> None:
    """Remove a file that is there."""
    if is_remote(location):
        with _s3(location) as (system, path):
            system.delete_file(path)
    else:
        Path(location).unlink()


def remove_folder(folder: str) -> None:
    """Remove a folder with its content, if it exists."""
    if is_remote(folder):
        with _s3(folder) as (system, path):
            system.delete_dir_contents(path, missing_dir_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def names(folder: str) -> list[str]:
    """The names of the files in a folder, empty when there is none."""
    return _names(folder, folders=False)


def folders(folder: str) -> list[str]:
    """The names of the folders in a folder, empty when there is none."""
    return _names(folder, folders=True)


def _names(folder: str, *, folders: bool) -> list[str]:
    if not is_remote(folder):
        return sorted(path.name for path in Path(folder).glob("[!.]*") if path.is_dir() is folders)
    from pyarrow.fs import FileSelector, FileType

    with _s3(folder) as (system, path):
        entries = system.get_file_info(FileSelector(path, allow_not_found=True))
    kind = FileType.Directory if folders else FileType.File
    return sorted(str(info.base_name) for info in entries if info.type == kind and not info.base_name.startswith("."))


@contextmanager
def _s3(location: str) -> Iterator[tuple[FileSystem, str]]:
    """Arrow's file system and the path of a location; raises UnavailableError for Arrow's errors."""
    try:
        yield arrow_files(location)
    except FileNotFoundError:
        raise
    except OSError as error:
        code = _CODE.search(str(error))
        raise UnavailableError(
            f"{location}: S3 does not answer ({code[1] if code else type(error).__name__})",
            hint="check the network, the credentials and the rights to read, write, list and delete under the checkpoint",
        ) from None
