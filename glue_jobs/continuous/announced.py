"""What the lake knows of the sources' tables when indexing begins."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from glue_jobs.config.pipeline import decode_context
from lake.layout import LakeLayout
from lake.tables.observed_types import announced
from transforms.drift import newest_by_column

if TYPE_CHECKING:
    from glue_jobs.config.pipeline import PipelineConfig
    from transforms.context import DecodeContext


def with_announced(config: PipelineConfig, source_name: str) -> DecodeContext:
    """The decode context of a source, with the newest schema that landing saw of each column that a document needs."""
    context, observed = decode_context(config, source_name), announced(LakeLayout(config.lake.path), config.tables)
    tables = dict(context.tables)
    for name in tables.keys() & observed.keys():
        newest = newest_by_column(
            (a.sequence, tables[name].needed_texts & a.columns.keys()) for a in observed[name].announcements
        )
        tables[name] = replace(tables[name], announced=newest)
    return replace(context, tables=tables)
