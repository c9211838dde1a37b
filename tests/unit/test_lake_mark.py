"""A checkpoint knows its lake: one that is lost, another, or an old copy is noticed before a job or a command relies on it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glue_jobs.config.pipeline import PipelineConfig, parse_config
from glue_jobs.config.values import Substitution
from glue_jobs.operations import checks
from glue_jobs.operations.ownership import adopt
from glue_jobs.storage import lake_mark
from lake.landing.batch import create_tables
from lake.landing.landed_files import WrittenFile, append
from lake.layout import LakeLayout
from schemas.errors import ConfigurationError
from warehouse.config import RedshiftConfig


def configured(folder: Path, lake: str = "lake", checkpoint: str = "checkpoint") -> PipelineConfig:
    settings: dict[str, Any] = {
        "name": "desk", "source": {"type": "files", "format": "kafka", "envelope": "debezium", "path": ["e"]},
        "tables": [{"table": "a.b", "keys": ["id"]}], "lake": {"path": str(folder / lake)},
        "checkpoint": str(folder / checkpoint),
    }  # fmt: skip
    return parse_config(json.dumps(settings), "pipeline.yaml", Substitution({}, folder))


def land(config: PipelineConfig, batch: int, *, noted: bool = True) -> None:
    """Commit a batch as `land_files` does; not noted, as one that was killed in between."""
    transaction = {"txnAppId": "query:changes", "txnVersion": str(batch)}
    file = WrittenFile(f"_ingest_date=2026-01-01/{batch}", 1, "2026-01-01", '{"numRecords":1}')
    append(LakeLayout(config.lake.path).path("changes"), [file], transaction)
    if noted:
        lake_mark.record_commit(config.checkpoint, "land_files", transaction)


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    """A pipeline that has landed two batches, of which a third part of the batches had no changes."""
    pipeline = configured(tmp_path)
    lake_mark.check(pipeline)
    create_tables(LakeLayout(pipeline.lake.path))
    lake_mark.bind(pipeline)
    for batch in (0, 2):
        land(pipeline, batch)
    lake_mark.check(pipeline)
    return pipeline


@contextmanager
def refused(condition: str) -> Iterator[None]:
    with pytest.raises(ConfigurationError) as raised:
        yield
    assert (raised.value.condition, raised.value.exit_status) == (condition, 2)
    assert "restore the lake" in raised.value.hint
    assert "fresh `checkpoint`" in raised.value.hint


def test_lake_that_is_gone_or_another_is_refused_until_it_is_back(config: PipelineConfig, tmp_path: Path) -> None:
    lake = Path(config.lake.path)
    lake.rename(tmp_path / "away")
    with refused("OTHER_LAKE"):
        lake_mark.check(config)
    create_tables(LakeLayout(config.lake.path))
    with refused("OTHER_LAKE"):
        lake_mark.check(config)
    lake_mark.bind(config)
    with refused("OTHER_LAKE"):
        lake_mark.check(config)
    shutil.rmtree(lake)
    (tmp_path / "away").rename(lake)
    lake_mark.check(config)


def test_an_old_copy_is_refused_and_a_moved_lake_is_not(config: PipelineConfig, tmp_path: Path) -> None:
    shutil.copytree(config.lake.path, tmp_path / "copy")
    lake_mark.check(configured(tmp_path, "copy"))
    land(config, 3)
    with refused("LAKE_SHORTENED"):
        lake_mark.check(configured(tmp_path, "copy"))
    append(
        LakeLayout(str(tmp_path / "copy")).path("changes"),
        [WrittenFile("_ingest_date=2026-01-01/x", 1, "2026-01-01", '{"numRecords":1}')],
        {"txnAppId": "another query", "txnVersion": "9"},
    )
    with refused("LAKE_SHORTENED"):
        lake_mark.check(configured(tmp_path, "copy"))


@pytest.mark.usefixtures("config")
def test_a_fresh_checkpoint_and_one_from_before_take_the_lake_that_stands(tmp_path: Path) -> None:
    fresh = configured(tmp_path, checkpoint="fresh")
    for _ in range(2):
        lake_mark.check(fresh)
        lake_mark.bind(fresh)
    other = configured(tmp_path, "other", "fresh")
    create_tables(LakeLayout(other.lake.path))
    with refused("OTHER_LAKE"):
        lake_mark.check(other)


def test_no_store_is_adopted_for_an_empty_lake_replacing_a_lost_one(config: PipelineConfig, tmp_path: Path) -> None:
    warehouse = RedshiftConfig.model_validate({
        "type": "redshift", "host": "127.0.0.1", "database": "d", "user": "u", "password": "p", "staging": "s3://bucket/x",
    })  # fmt: skip
    shutil.move(config.lake.path, tmp_path / "away")
    with refused("OTHER_LAKE"):
        adopt(config.model_copy(update={"warehouse": warehouse}), "warehouse")
    assert not Path(config.lake.path).exists()


def test_a_kill_between_commit_and_mark_leaves_nothing_to_refuse(config: PipelineConfig) -> None:
    land(config, 3, noted=False)
    lake_mark.check(config)


@pytest.mark.parametrize("job", ["land", "merge", "index", "load"])
def test_every_job_asks_before_it_starts(config: PipelineConfig, job: str) -> None:
    shutil.rmtree(config.lake.path)
    with refused("OTHER_LAKE"):
        checks.parts(config, [job])["lake"]()
