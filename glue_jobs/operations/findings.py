"""Findings of a comparison: a frame of any size, and counts that the driver decides by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from sinks.digests import KINDS

_FEW = 1_000
"""Most findings that are broadcast, so that the lake is not shuffled to compare their documents again."""


class Group(NamedTuple):
    """Findings that the driver counts together."""

    kind: str
    table: str
    foreign: bool
    """Whether no writer can overwrite them."""
    bucket: str


@dataclass(frozen=True)
class Findings:
    """Findings, and what the driver knows of them."""

    frame: DataFrame
    """DRIFT, evaluated once."""
    counts: Counter[Group]

    @classmethod
    def of(cls, findings: DataFrame, width: int) -> Findings:
        """Evaluate findings, once; buckets have names of so many characters."""
        once = findings.localCheckpoint(eager=False)
        groups = once.groupBy("kind", "table_name", is_foreign().alias("foreign"), bucket(width)).count()
        return cls(once, Counter({Group(*row[:4]): row["count"] for row in groups.collect()}))

    @property
    def number(self) -> int:
        """How many there are."""
        return self.counts.total()

    @property
    def are_few(self) -> bool:
        """Whether they may be broadcast."""
        return self.number <= _FEW

    def count(self, wanted: Callable[[Group], bool]) -> int:
        """How many are in groups of some kind."""
        return sum(number for group, number in self.counts.items() if wanted(group))

    def by_kind(self) -> dict[str, int]:
        """How many are of each kind."""
        counts: dict[str, int] = dict.fromkeys(KINDS, 0)
        for group, number in self.counts.items():
            counts[group.kind] += number
        return counts


def broadcast_if_few(findings: Findings, frame: DataFrame) -> DataFrame:
    """A frame of no more rows than these findings, broadcast in a join if they are few."""
    return F.broadcast(frame) if findings.are_few else frame


def is_foreign() -> Column:
    """Whether no writer can overwrite a finding."""
    return (F.col("kind") == "orphan") | (F.col("name") != F.col("document_id"))


def bucket(width: int) -> Column:
    """The bucket of a document, named by so many characters of its id."""
    return F.substring("document_id", 1, width).alias("bucket")
