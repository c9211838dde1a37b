"""What OpenSearch is asked for: slices of a bulk, and configurations that cannot work."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sinks.opensearch.client import MOST_BYTES, MOST_ITEMS, Action, _slices
from sinks.opensearch.config import OpenSearchConfig


@pytest.mark.parametrize(
    ("size", "number", "slices"), [(10, MOST_ITEMS + 1, 2), (MOST_BYTES, 3, 3), (MOST_BYTES // 2, 3, 3), (10, 0, 0)]
)
def test_a_bulk_is_cut_into_requests_that_every_server_takes(size: int, number: int, slices: int) -> None:
    actions = [Action("create", {"_index": "i", "_id": str(n)}, {"text": "x" * size}) for n in range(number)]
    cut = list(_slices(actions))
    assert len(cut) == slices
    assert [line for part in cut for line in part] == [action.lines() for action in actions]


@pytest.mark.parametrize(
    "wrong",
    [
        {"user": "u"},
        {"user": "u", "password": "p", "signing": {"service": "es", "region": "eu-west-1"}},
        {"url": "http://u:p@host:9200"},
        {"index": "Upper"},
        {"index": "with-dash"},
        {"signing": {"service": "s3", "region": "eu-west-1"}},
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_opened(wrong: dict[str, Any]) -> None:
    good = {"type": "opensearch", "url": "https://host:9200", "index": "kb"}
    assert not OpenSearchConfig.model_validate(good).serverless
    with pytest.raises(ValidationError):
        OpenSearchConfig.model_validate(good | wrong)
