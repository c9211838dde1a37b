"""The configuration of search and answers; it needs no client."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from generation import TextModelConfig
from schemas.model import StrictModel
from transforms.filters.parsing import path_of


class ExtractiveConfig(StrictModel):
    """Answers quoted from the rows themselves: the sentences that resemble the question most."""

    type: Literal["extractive"]
    sentences: int = Field(default=3, ge=1, le=10)
    """Sentences of an answer at most, of one row or of several."""


type GenerationConfig = Annotated[TextModelConfig | ExtractiveConfig, Field(discriminator="type")]
"""The `generation` section of a pipeline's configuration."""


class RetrievalConfig(StrictModel):
    """What is found for a question, and whether it is answered."""

    min_similarity: float | None = Field(default=None, ge=-1, le=1)
    """Least cosine similarity at which a chunk is answered from, measured with your model and rows. Left out, thresholds for the
    model decide (`ragstream evaluate --calibrate`), which ask for less of a chunk that has the question's own words; without any,
    `ask` abstains."""


PUBLIC = "public"
"""The rule of a table whose rows everybody finds."""
CLAIM = re.compile(r"\$\{claim:([^{}]+)\}")


def is_of_table(name: str, rule: object) -> bool:
    """Whether a key of `access` names a table, and no column."""
    return isinstance(rule, dict) or (rule == PUBLIC and "." in name)


def _sound(rules: dict[str, object]) -> dict[str, object]:
    """Refuse a key that names no column, and a claim that is only a part of a value."""
    for name, value in rules.items():
        if isinstance(value, dict):
            _sound(value)
        elif not is_of_table(name, value) and path_of(name) is None:
            msg = f"{name!r} names no column; one with odd characters is written in double quotes"
            raise ValueError(msg)
        elif isinstance(value, str) and "${claim:" in value and not CLAIM.fullmatch(value):
            msg = f"the value of {name!r} is a claim as a whole, ${{claim:NAME}}, or a constant"
            raise ValueError(msg)
    return rules


type AccessConfig = Annotated[dict[str, str | int | bool | dict[str, str | int | bool]], AfterValidator(_sound)]
"""The `access` section: columns, and what they must equal in every table (`${claim:NAME}`, or a constant); such rules by table;
`public` for a table whose rows everybody finds."""

EXTRACTIVE = ExtractiveConfig(type="extractive")
"""Who answers where the configuration names nobody: it needs no other model than the embedding's."""
