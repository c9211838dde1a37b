"""Fixtures of the integration lane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local_stack.models.service import ModelService
from local_stack.servers.connect import request_json
from tests.lake_to_store import Lake


@pytest.fixture
def lake(tmp_path: Path, vectors_dsn: str, instant_model: ModelService) -> Iterator[Lake]:
    """An empty lake, a database for its stores, and a model that was asked nothing yet."""
    url = instant_model.endpoint["endpoint_url"]
    request_json(url, "POST", "/reset", {})
    found = Lake(tmp_path, vectors_dsn, url)
    yield found
    found.faults()
