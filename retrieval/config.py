"""The configuration of search and answers; it needs no client."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from generation import TextModelConfig
from schemas.model import StrictModel


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
    model decide, which ask for less of a chunk that has the question's own words; `check` says where none were measured."""


EXTRACTIVE = ExtractiveConfig(type="extractive")
"""Who answers where the configuration names nobody: it needs no other model than the embedding's."""
