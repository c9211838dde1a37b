"""Ties a checkpoint to its lake and to each query's last commit, so that a lost or restored lake is detected.

`<checkpoint>/landed/lake.json` names the lake; a file beside it for each query names its last batch committed to `changes`.
Each is written after the commit and before Spark commits the offsets, so after a kill the lake may be ahead of the mark but
never behind the offsets. A fresh checkpoint has no marks and accepts any lake, since stores refuse records landed again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from glue_jobs.storage import files
from lake.identity import lake_id, transaction_reached
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from glue_jobs.config.pipeline import PipelineConfig

_LAKE = "lake.json"


def check(config: PipelineConfig) -> None:
    """Raise ConfigurationError for another lake than the checkpoint's, or one that lacks its commits. Writes nothing."""
    folder = _folder(config.checkpoint)
    stored = _read(f"{folder}/{_LAKE}")
    if stored is None:
        return
    current_id, expected_id = lake_id(config.lake.path), stored["id"]
    if current_id != expected_id:
        difference = (
            f"and the lake at {config.lake.path} is {current_id}"
            if current_id
            else f"and there is none at {config.lake.path}"
        )
        raise _refusal(
            config, f"the checkpoint {config.checkpoint} belongs to lake {expected_id}, {difference}", "OTHER_LAKE"
        )
    for name in files.names(folder):
        mark = _read(f"{folder}/{name}") if name != _LAKE else None
        if mark is not None and transaction_reached(config.lake.path, mark["txnAppId"]) < int(mark["txnVersion"]):
            query = name.removesuffix(".json")
            problem = (
                f"the lake at {config.lake.path} lacks what {query} has landed by the checkpoint {config.checkpoint}"
            )
            raise _refusal(config, problem, "LAKE_SHORTENED")


def bind(config: PipelineConfig) -> None:
    """Store the lake's id with the checkpoint, unless one is stored or the lake does not exist yet."""
    place = f"{_folder(config.checkpoint)}/{_LAKE}"
    if _read(place) is None and (identity := lake_id(config.lake.path)):
        files.write(place, json.dumps({"id": identity}))


def record_commit(checkpoint: str, query: str, transaction: Mapping[str, str]) -> None:
    """Store the batch that a query has committed to `changes`."""
    files.write(f"{_folder(checkpoint)}/{query}.json", json.dumps(dict(transaction)))


def _refusal(config: PipelineConfig, problem: str, condition: str) -> ConfigurationError:
    fresh = "name a fresh `checkpoint`: the streams are landed again from what they retain, which no store takes twice"
    adopt = "; then `ragstream adopt CONFIG` each store" if config.sinks or config.warehouse else ""
    return ConfigurationError(
        f"{problem}; records that the streams no longer retain are in no other place",
        condition=condition,
        hint=f"restore the lake, or correct `lake.path`; where it is lost, {fresh}{adopt if condition == 'OTHER_LAKE' else ''}",
    )


def _folder(checkpoint: str) -> str:
    return f"{checkpoint.rstrip('/')}/landed"


def _read(place: str) -> dict[str, str] | None:
    text = files.read(place)
    mark: dict[str, str] | None = None if text is None else json.loads(text)
    return mark
