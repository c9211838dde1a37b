"""The configuration's JSON Schema, for editors: `python -m glue_jobs.config.json_schema > job_configs/schema.json`."""

from __future__ import annotations

import json
import sys
from typing import Any

from glue_jobs.config.pipeline import PipelineConfig
from schemas.durations import DURATION

_DURATIONS = (
    ("LakeConfig", "land_every"), ("LakeConfig", "merge_every"), ("RedshiftConfig", "load_every"),
    ("PgvectorConfig", "deadline"), ("OpenSearchConfig", "deadline"), ("DocumentDBConfig", "deadline"),
)  # fmt: skip
"""Keys that take a number of seconds or a duration."""
_REFERENCE = {"type": "string", "pattern": r"^.*\$\{(env|secret):.+\}.*$"}
"""A reference may stand for any single value."""


def schema() -> dict[str, Any]:
    """What an editor may offer and complain about; loading says more."""
    found = PipelineConfig.model_json_schema(by_alias=True)
    source = found["properties"]["source"]
    source["anyOf"] = [
        source["items"],
        {key: source.pop(key) for key in ("items", "minItems", "type") if key in source},
    ]
    for part, name in _DURATIONS:
        duration = found["$defs"][part]["properties"][name]
        seconds = {key: duration.pop(key) for key in ("type", "exclusiveMinimum", "minimum") if key in duration}
        duration["anyOf"] = [seconds, {"type": "string", "pattern": DURATION.pattern}]
    _allow_references(found)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def rendered() -> str:
    """The file's text."""
    return json.dumps(schema(), indent=2) + "\n"


def _allow_references(part: Any) -> None:
    """Let a number or a choice be a reference too: it is text until it is looked up."""
    if isinstance(part, list):
        for item in part:
            _allow_references(item)
    if not isinstance(part, dict):
        return
    for item in part.values():
        _allow_references(item)
    kind = part.get("type")
    if isinstance(kind, str) and kind in {"integer", "number", "boolean"} and "const" not in part:
        kept = {"description", "default", "title"}
        value = {key: part.pop(key) for key in list(part) if key not in kept}
        part["anyOf"] = [value, _REFERENCE]


if __name__ == "__main__":
    sys.stdout.write(rendered())
