"""Fixtures of all lanes: the real servers, and one Spark session with the product's own settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from glue_jobs.runtime.spark.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
"""A test's JVM lives for seconds: what the second compiler makes of them is not earned back."""

pytest_plugins = ["tests.servers"]

_ON_ONE_WORKER = {"test_glue_package", "test_install", "test_langchain", "test_mcp", "test_page", "test_serving"}
"""Modules whose own fixtures take long: one worker runs all tests of such a module."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rechunkings N`: how often a document is cut anew under a reader's eyes, in place of as often as is quick.

    `--minutes N` and `--kill-every N` (minutes, 0: never) are of `make test-long`, the others of `make converge`.
    """
    parser.addoption("--rechunkings", type=int, default=0)
    parser.addoption("--minutes", type=float, default=120)
    parser.addoption("--kill-every", type=float, default=10)
    parser.addoption("--histories", type=int, default=10_000)
    parser.addoption("--seed", type=int, default=0)
    parser.addoption("--write-report", action="store_true")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of what takes longest to start to one worker (`--dist loadgroup`): the rest goes wherever there is room."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "opensearch" in item.name or "opensearch" in fixtures:
            item.add_marker(pytest.mark.xdist_group("opensearch"))
        elif "filled" in fixtures:
            item.add_marker(pytest.mark.xdist_group("helpdesk"))
        elif item.path.stem in _ON_ONE_WORKER:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The session of this test run, on two cores; its warehouse is a temporary folder."""
    folder = tmp_path_factory.mktemp("spark")
    session = open_session("tests", checkpoint=str(folder / "checkpoints"), cores=2)
    yield session
    session.stop()
