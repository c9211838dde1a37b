"""What every source's configuration says of its records: who captured them, and where their schemas are."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from schemas.model import StrictModel
from schemas.records import Envelope
from sources.registry.config import RegistryConfig
from transforms.context import BEFORE_IMAGE, BEFORE_IMAGE_FORM


class CapturedSource(StrictModel):
    """A stream of captured changes."""

    envelope: Envelope
    """Who captured the changes, and in which form: `debezium`, `dms`, `flattened` (Debezium's ExtractNewRecordState with
    `add.fields`) or `outbox` (its EventRouter)."""
    registry: RegistryConfig | None = None
    """The schema registry of records in Avro or JSON Schema, whose first bytes name their schema. Left out, records are JSON."""
    before_image: str = Field(default=BEFORE_IMAGE, pattern=BEFORE_IMAGE_FORM)
    """DMS: the field with a row's old values, as BeforeImageSettings names it (`FieldName`); with a `*` for a column's name,
    the columns that the mapping rule `add-before-image-columns` adds: `BI_*`."""

    @model_validator(mode="after")
    def _framed_by_connect(self) -> Self:
        if self.registry is not None and self.envelope == "dms":
            raise ValueError("registry is for Debezium's records: DMS writes plain JSON")
        return self
