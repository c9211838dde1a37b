"""The target model of a migration, from `--to`: a model's id, or a file with an `embedding` section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from embeddings import BedrockEmbeddingConfig, EmbeddingConfig
from embeddings.bedrock.codecs import codec_for
from glue_jobs.config import yaml_text as config_yaml
from glue_jobs.config.pipeline import PipelineConfig, read_text
from glue_jobs.config.values import substitution
from schemas.errors import ConfigurationError

_ADAPTER: TypeAdapter[EmbeddingConfig] = TypeAdapter(EmbeddingConfig)
_FILES = {".yaml", ".yml", ".json"}


def target_model(config: PipelineConfig, to: str, dimensions: int | None) -> EmbeddingConfig:
    """The embedding configuration of `--to`: a file's, or the pipeline's own with another model.

    Raises:
        ConfigurationError: there is no such model, or its dimensions must be chosen.
    """
    own = config.embedding
    assert own is not None  # noqa: S101 - the command looked
    if Path(to).suffix in _FILES:
        return _validated(_section(to), to)
    if not isinstance(own, BedrockEmbeddingConfig):
        raise ConfigurationError(
            f"--to {to}: a model of type {own.type} needs a file",
            condition="MODEL_UNKNOWN",
            hint="name a YAML file with an `embedding` section",
        )
    fields = own.model_dump(exclude_unset=True) | {"model": to, "dimensions": _dimensions(own, to, dimensions)}
    fields.pop("max_chars", None)  # a limit of the previous model
    return _validated(fields, f"--to {to}")


def _dimensions(own: BedrockEmbeddingConfig, model: str, requested: int | None) -> int:
    """The requested dimensions, else the present ones if the model offers them, else its only ones."""
    offered = codec_for(model).dimensions
    if requested is not None or own.dimensions in offered:
        return requested or own.dimensions
    if len(offered) == 1:
        return next(iter(offered))
    raise ConfigurationError(
        f"--to {model}: its vectors have {', '.join(map(str, sorted(offered)))} dimensions, and none was chosen",
        condition="WRONG_DIMENSIONS", hint="add --dimensions",
    )  # fmt: skip


def _section(path: str) -> Any:
    document = config_yaml.parse(read_text(path), path)
    references = substitution()
    value = references.apply(document.value)
    if references.problems or not isinstance(value, dict):
        problem = references.problems[0].what if references.problems else "keys and values are expected"
        raise ConfigurationError(f"{path}: {problem}", condition="CONFIGURATION_INVALID")
    return value.get("embedding", value)


def _validated(fields: Any, name: str) -> EmbeddingConfig:
    try:
        return _ADAPTER.validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigurationError(
            f"{name}: embedding.{where}: {first['msg']}", condition="CONFIGURATION_INVALID",
            hint="it needs what the `embedding` section of a pipeline needs; `job_configs/schema.json` has it all",
        ) from None  # fmt: skip
