"""What OpenSearch is asked for: terms of metadata, slices of a bulk, and configurations that cannot work."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from sinks.metadata_terms import metadata_terms
from sinks.opensearch.client import MOST_BYTES, MOST_ITEMS, Action, _slices
from sinks.opensearch.config import OpenSearchConfig


@pytest.mark.parametrize(
    ("wanted", "held", "satisfied"),
    [
        ({}, {"a": 1}, True),
        ({"a": 1}, {"a": Decimal("1.0"), "b": 2}, True),
        ({"a": 100}, {"a": Decimal("1E+2")}, True),
        ({"a": 1}, {"a": 10}, False),
        ({"a": 1}, {"a": -1}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": 0}, {"a": Decimal("0.00")}, True),
        ({"a": 10**30}, {"a": 10**30 + 1}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": None}, {}, False),
        ({"a": ""}, {"a": ""}, True),
        ({"a.b": 1}, {"a": {"b": 1}}, False),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, True),
        ({"a": {}}, {"a": {"b": 1}}, True),
        ({"a": ["x"]}, {"a": ["y", "x"]}, True),
        ({"a": "x"}, {"a": ["x"]}, False),
        ({"a": []}, {"a": ["x"]}, True),
        ({"a": "lone \ud800"}, {"a": "lone \ufffd"}, True),
        ({"a": "x" * 100_000}, {"a": "x" * 100_000}, True),
    ],
)
def test_a_filter_is_satisfied_as_by_containment_of_json(
    wanted: dict[str, Any],
    held: dict[str, Any],
    satisfied: bool,  # noqa: FBT001
) -> None:
    terms = set(metadata_terms(held))
    assert (set(metadata_terms(wanted)) <= terms) == satisfied
    assert all(len(term) == 32 for term in terms)


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
