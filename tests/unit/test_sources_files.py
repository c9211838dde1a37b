"""Recorded events are cut into batches of N lines as they stand, the same ones after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigurationError, SourceGoneError
from sources.files import reader as files_reader
from sources.files import source as files
from sources.files.config import FilesSourceConfig
from sources.files.reader import RecordedEventsReader


def lines(*offsets: int, end: str = "\n") -> str:
    return (
        "\n".join(f'{{"topic": "t", "key": null, "value": {{}}, "partition": 0, "offset": {o}}}' for o in offsets) + end
    )


def drain(reader: RecordedEventsReader, start: dict[str, int] | None = None) -> list[list[str]]:
    """Read batch after batch as Spark does."""
    if start is None:
        start = reader.initialOffset()
    else:
        reader.partitions(start, start)
    batches = []
    while (end := reader.latestOffset()) != start:
        batches.append(positions(reader, start, end))
        start = end
    return batches


def positions(reader: RecordedEventsReader, start: dict[str, int], end: dict[str, int]) -> list[str]:
    return [
        str(p) for split in reader.partitions(start, end) for b in reader.read(split) for p in b["position"].to_pylist()
    ]


def test_a_batch_is_n_lines_as_they_stand(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text(lines(3, 1, 1))
    second.write_text("\n" + lines(9, 2, end=""))
    reader = RecordedEventsReader([str(first), str(second)], "kafka", 2)
    assert drain(reader) == [["3", "1"], ["1", "9"], ["2"]]


def test_the_same_file_named_twice_is_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(lines(1, 2))
    assert drain(RecordedEventsReader([str(path)] * 2, "kafka", 3)) == [["1", "2", "1"], ["2"]]


def test_a_restart_goes_on_and_a_batch_run_again_holds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(lines(*range(7)))
    reader = RecordedEventsReader([str(path)], "kafka", 3)
    start = reader.initialOffset()
    middle = reader.latestOffset()
    again = RecordedEventsReader([str(path)], "kafka", 3)
    assert positions(again, start, middle) == positions(reader, start, middle) == ["0", "1", "2"]
    assert drain(again, middle) == [["3", "4", "5"], ["6"]]


def test_appended_lines_come_next(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(lines(1))
    reader = RecordedEventsReader([str(path)], "kafka", 3)
    assert drain(reader) == [["1"]]
    end = reader.latestOffset()
    with path.open("a") as file:
        file.write(lines(2))
    assert positions(reader, end, reader.latestOffset()) == ["2"]


@pytest.mark.parametrize("split_bytes", [1, 7, 64, 75, 1000])
def test_every_line_is_in_exactly_one_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split_bytes: int) -> None:
    monkeypatch.setattr(files_reader, "_SPLIT_BYTES", split_bytes)
    path = tmp_path / "a"
    path.write_text(lines(*range(20)))
    assert drain(RecordedEventsReader([str(path)], "kafka", 7)) == [
        [str(n) for n in range(7)],
        [str(n) for n in range(7, 14)],
        [str(n) for n in range(14, 20)],
    ]


def test_a_file_that_shrank_or_went_stops_the_job(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text(lines(1, 2))
    reader = RecordedEventsReader([str(path)], "kafka", 3)
    end = reader.latestOffset()
    path.write_text(lines(1))
    with pytest.raises(SourceGoneError, match="fewer than"):
        RecordedEventsReader([str(path)], "kafka", 3).partitions(end, end)
    path.unlink()
    with pytest.raises(SourceGoneError, match="is gone"):
        reader.latestOffset()


def test_check_names_the_file_that_is_missing(tmp_path: Path) -> None:
    config = FilesSourceConfig(type="files", format="kafka", envelope="debezium", path=[str(tmp_path / "none.jsonl")])
    with pytest.raises(ConfigurationError, match=r"none\.jsonl"):
        files.check(config)
