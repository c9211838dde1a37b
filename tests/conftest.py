"""Fixtures of all lanes: the real servers, and one Spark session with the product's own settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler.loadgroup import LoadGroupScheduling  # type: ignore[import-untyped]

from glue_jobs.runtime.spark.session import open_session

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
"""A test's JVM lives for seconds: what the second compiler makes of them is not earned back."""

pytest_plugins = ["tests.servers"]

_ON_ONE_WORKER = {"test_glue_package", "test_install", "test_langchain", "test_mcp", "test_page", "test_serving"}
"""Modules whose own fixtures take long: one worker runs all tests of such a module."""
_WITH_HELPDESK = {"test_languages", "test_pgvector_filters", "test_search", "test_evaluate"}
"""Modules that fill a helpdesk: one worker runs them all."""


class GroupScheduling(LoadGroupScheduling):  # type: ignore[misc]
    """Gives tests of what takes longest to start to one worker; the rest goes wherever there is room.

    xdist's marks do not reach its scheduler with this version of pytest: a test's id cannot be changed any more.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = Path(nodeid.partition("::")[0]).stem
        if "opensearch" in nodeid:
            return "opensearch"
        if module in _WITH_HELPDESK:
            return "helpdesk"
        return module if module in _ON_ONE_WORKER else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """Schedule by group in place of xdist's own `loadgroup`."""
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests on MySQL out unless `-m` names them: what `make test-mysql` fetches is on no other machine."""
    if "mysql" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("mysql")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--rechunkings N`: how often a document is cut anew under a reader's eyes, in place of as often as is quick.

    `--minutes N` and `--kill-every N` (minutes, 0: never) are of `make test-long`; `--minutes`, `--rate N` (changes a second, of
    both engines together) and `--kills N` of `make test-engines`; the others of `make converge`.
    """
    parser.addoption("--rechunkings", type=int, default=0)
    parser.addoption("--minutes", type=float, default=120)
    parser.addoption("--kill-every", type=float, default=10)
    parser.addoption("--rate", type=float, default=200)
    parser.addoption("--kills", type=int, default=30)
    parser.addoption("--histories", type=int, default=10_000)
    parser.addoption("--seed", type=int, default=0)
    parser.addoption("--lanes", default="")
    parser.addoption("--write-report", action="store_true")


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The session of this test run, on two cores; its warehouse is a temporary folder."""
    folder = tmp_path_factory.mktemp("spark")
    session = open_session("tests", checkpoint=str(folder / "checkpoints"), cores=2)
    yield session
    session.stop()
