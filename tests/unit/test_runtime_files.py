"""Small files beside a checkpoint, and what an outage of S3 is called."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import pytest

from glue_jobs.continuous.store_positions import StorePositions, read, write
from glue_jobs.operations import checks
from glue_jobs.runtime.failures import Kind, kind_of
from glue_jobs.storage import files
from schemas.errors import UnavailableError


class AwayFiles:
    """Arrow's file system of S3 while S3 does not answer."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def fail(*_: Any, **__: Any) -> NoReturn:
            raise OSError(f"When doing {name}: AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7")

        return fail


@pytest.mark.parametrize(
    "call",
    [
        read,
        lambda at: write(at, StorePositions(readers=True)),
        lambda at: files.remove(f"{at}/a.json"),
        files.remove_folder,
        files.names,
    ],
)
def test_an_outage_of_s3_is_waited_for(call: Callable[[str], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "arrow_files", lambda location: (AwayFiles(), location))
    with pytest.raises(UnavailableError, match=r"s3a://b/c.* S3 does not answer \(NETWORK_CONNECTION\)") as raised:
        call("s3a://b/c")
    assert kind_of(raised.value, "", "")[0] is Kind.UNAVAILABLE


def test_a_file_that_is_not_there_is_none_also_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty:
        def open_input_stream(self, path: str) -> NoReturn:
            raise FileNotFoundError(path)

    assert files.read(f"{tmp_path}/none.json") is None
    monkeypatch.setattr(files, "arrow_files", lambda location: (Empty(), location))
    assert files.read("s3a://b/none.json") is None


def test_drivers_that_check_a_folder_at_once_find_it_writable(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as drivers:
        for checked in [drivers.submit(checks.check_writable, str(tmp_path / "new"), "checkpoint") for _ in range(400)]:
            checked.result()
    assert list((tmp_path / "new").iterdir()) == []
