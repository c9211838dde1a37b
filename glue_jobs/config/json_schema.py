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
    *((memory, name) for memory in ("DocumentDBMemoryConfig", "DynamoDBMemoryConfig", "MemoryDBConfig")
      for name in ("ttl", "turn_timeout", "busy_timeout")),
    ("AnswerBudgetConfig", "wait"), ("RerankingBudgetConfig", "wait"),
    *(("LimitsConfig", name) for name in (
        "watch_for", "header_timeout", "body_timeout", "send_timeout", "request_timeout", "stop_timeout")),
    ("JwtConfig", "leeway"), ("AlbConfig", "leeway"),
)  # fmt: skip
"""Keys whose value is a number of seconds or a duration text."""
_REFERENCE = {"type": "string", "pattern": r"^.*\$\{(env|secret):.+\}.*$"}
"""A reference may replace any scalar value."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a pipeline file; loading checks more than it."""
    document = PipelineConfig.model_json_schema(by_alias=True)
    source = document["properties"]["source"]
    source["anyOf"] = [
        source["items"],
        {key: source.pop(key) for key in ("items", "minItems", "type") if key in source},
    ]
    for part, name in _DURATIONS:
        duration = document["$defs"][part]["properties"][name]
        seconds = {key: duration.pop(key) for key in ("type", "exclusiveMinimum", "minimum") if key in duration}
        duration["anyOf"] = [seconds, {"type": "string", "pattern": DURATION.pattern}]
    _allow_references(document)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def rendered() -> str:
    """The file's text."""
    return json.dumps(schema(), indent=2) + "\n"


def _allow_references(part: Any) -> None:
    """Allow a reference in place of a number or a boolean."""
    if isinstance(part, list):
        for item in part:
            _allow_references(item)
    if not isinstance(part, dict):
        return
    for item in part.values():
        _allow_references(item)
    kind = part.get("type")
    if isinstance(kind, str) and kind in {"integer", "number", "boolean"} and "const" not in part:
        annotations = {"description", "default", "title"}
        value = {key: part.pop(key) for key in list(part) if key not in annotations}
        part["anyOf"] = [value, _REFERENCE]


if __name__ == "__main__":
    sys.stdout.write(rendered())
