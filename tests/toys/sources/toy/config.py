"""The configuration of a toy source: one file."""

from __future__ import annotations

from typing import Literal

from sources.captured import CapturedSource
from sources.files.config import FilesSourceConfig


class ToySourceConfig(CapturedSource):
    """A toy source."""

    type: Literal["toy"]
    name: str = "toy"
    toy_file: str

    @property
    def inside(self) -> FilesSourceConfig:
        """The source that does the work; what its records mean is decided by this one's envelope."""
        return FilesSourceConfig(
            type="files", name=self.name, format="kafka", envelope="debezium", path=[self.toy_file]
        )
