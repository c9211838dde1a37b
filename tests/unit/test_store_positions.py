"""How far each store has come: the file, and how positions add up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glue_jobs.continuous import store_positions
from glue_jobs.continuous.store_positions import StorePositions, advanced, earliest, latest
from schemas.errors import StoppedError
from sources.kinesis.offsets import Mark

_STORES = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.dictionaries(st.sampled_from(["t/0", "t/1", "u/0"]), st.integers(0, 9))
)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    positions = StorePositions(
        readers=True, identity={"topics": {"t": "id"}}, stores={"a": {"t/0": 7}, "b": {"t/0": 5}}, behind=("b",)
    )
    assert store_positions.read(str(tmp_path / "index_x")) is None
    store_positions.write(str(tmp_path / "index_x"), positions)
    assert store_positions.read(str(tmp_path / "index_x")) == positions
    written = json.loads((tmp_path / "index_x" / "positions.json").read_text())
    assert written == {"format": 1, **asdict(positions), "behind": ["b"]}


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "positions.json").write_text('{"format": 2, "else": []}')
    with pytest.raises(StoppedError, match=r"positions\.json was written by a newer version"):
        store_positions.read(str(tmp_path))


def test_one_query_for_all_stores_begins_where_the_earliest_stands() -> None:
    assert earliest([{"t/0": 7, "t/1": 3}, {"t/0": 5, "t/1": 9}]) == {"t/0": 5, "t/1": 3}
    assert earliest([]) == {}


def test_a_shards_child_that_one_store_lacks_is_opened_again() -> None:
    parent, child = Mark("TRIM_HORIZON", sequence="50", count=3), Mark("TRIM_HORIZON", sequence="70", count=1)
    ahead = {"s/parent": asdict(parent) | {"closed": True}, "s/child": asdict(child)}
    back = {"s/parent": asdict(parent)}
    assert earliest([ahead, back]) == back
    assert latest([ahead, back]) == ahead


def test_nobody_has_read_further_than_the_store_that_is_ahead() -> None:
    assert latest([{"t/0": 7}, {"t/0": 5, "t/1": 9}]) == {"t/0": 7, "t/1": 9}


def test_a_harvest_moves_only_what_is_read_and_only_forward() -> None:
    before = {"a": {"t/0": 5, "gone/0": 3}, "b": {"t/0": 5}}
    harvest = {"a": {"t/0": 9, "gone/0": 8}, "b": {"t/0": 4}, "removed": {"t/0": 9}}
    starts = {"a": {"t/0": 0, "new/0": 2}, "b": {"t/0": 0, "new/0": 2}}
    assert advanced(starts, [before, harvest]) == {"a": {"t/0": 9, "new/0": 2}, "b": {"t/0": 5, "new/0": 2}}


@given(st.lists(_STORES, max_size=3), _STORES)
def test_harvests_may_come_in_any_order_and_again(harvests: list[Mapping[str, Any]], starts: Mapping[str, Any]) -> None:
    once = advanced(starts, harvests)
    assert advanced(starts, [*reversed(harvests), *harvests]) == once
    assert advanced(once, harvests) == once
