"""What decoding needs to know of the configuration, and how it names rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from schemas.records import Envelope
from transforms.envelopes.registry import SchemaRegistry
from transforms.values import exact_json
from transforms.values.encodings import Convert
from transforms.values.types import converter

if TYPE_CHECKING:
    from schemas.tables import Rule

BEFORE_IMAGE = "before-image"
"""The name of the field with a row's old values that the rendered DMS task asks for (BeforeImageSettings.FieldName)."""

BEFORE_IMAGE_FORM = r"^([^*]+|[^*]+\*[^*]*|\*[^*]+)$"
"""A name, or a name with one `*` in it."""


@dataclass(frozen=True)
class TableContext:
    """What decoding needs to know of one table: its name at the source, its keys, the types its owner declared."""

    table: str
    keys: tuple[str, ...]
    columns: Mapping[str, str] = field(default_factory=dict)
    partitions: tuple[str, ...] = ()
    """Names, with `*` for any text, of tables whose records are this one's."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """Columns whose values must not travel (`transforms.values.rules`)."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Names here of columns that records call otherwise."""
    needed: frozenset[str] = frozenset()
    """Columns without which the job stops: an announced schema that lacks one is drift, not a value that is missing."""
    announced: Mapping[str, str] = field(default_factory=dict)
    """By column: where the newest announced schema that has it stands among the others, when the job began."""

    def rule_of(self, column: str) -> Rule | None:
        """The rule of a column, whatever the case of its name: one that is written otherwise must not travel either."""
        return self._folded_rules.get(column.casefold())

    @cached_property
    def _folded_rules(self) -> dict[str, Rule]:
        rules = dict(self.rules)
        for old, new in self.renamed.items():  # under either name: a record may have both
            for name, other in ((old, new), (new, old)):
                if other in self.rules:
                    rules.setdefault(name, self.rules[other])
        return {name.casefold(): rule for name, rule in rules.items()}

    @property
    def converters(self) -> dict[str, Convert]:
        """By column: what makes values of the declared types canonical, where they came without their schema."""
        return {name: convert for name, kind in self.columns.items() if (convert := converter(kind))}

    @cached_property
    def has_converters(self) -> bool:
        """Whether a column's values or its name are changed."""
        return bool(self.renamed or self.converters)

    @cached_property
    def needed_texts(self) -> frozenset[str]:
        """The needed columns that are not of the key."""
        return self.needed.difference(self.keys)

    def named[V](self, columns: Mapping[str, V]) -> dict[str, V]:
        """Columns under the names that they have here."""
        return under_names(columns, self.renamed)

    @cached_property
    def key_prefixes(self) -> tuple[tuple[str, str], ...]:
        """The name of each key column, and the text before its value in `key_text`."""
        return tuple((name, f"{exact_json.dumps(name)}:") for name in dict.fromkeys(self.keys))


@dataclass(frozen=True)
class DecodeContext:
    """What decoding needs to know of one source. Plain data: it travels to executors and to a Lambda."""

    envelope: Envelope
    tables: Mapping[str, TableContext]
    others: frozenset[str] = frozenset()
    """Tables that another source of this pipeline owns: their records are rejects here."""
    epoch_starts_us: tuple[int, ...] = ()
    unavailable_value: str = "__debezium_unavailable_value"
    ignored: frozenset[str] = frozenset()
    """Tables that carry no rows of the pipeline: the signal and heartbeat tables of the capture."""
    registry: SchemaRegistry | None = None
    """The schemas of values that a registry's serializer framed; without one, only JSON in a frame is read."""
    ruled_others: frozenset[str] = frozenset()
    """Those of `others` that have rules for columns."""
    hash_key: bytes = field(default=b"", repr=False)
    """The key of the rule `hash`: a secret."""
    before_image: str = BEFORE_IMAGE
    """DMS: the field with a row's old values; with a `*` for a column's name, the columns of the row that have them."""
    lob_limit: int = 0
    """DMS: bytes of a large value after which the task cuts it; 0 where that is not known."""

    @cached_property
    def ruled(self) -> frozenset[str]:
        """Tables with rules for columns, here or of another source."""
        return self.ruled_others | {name for name, table in self.tables.items() if table.rules}

    @cached_property
    def before_image_affixes(self) -> tuple[str, str] | None:
        """What stands before and after a column's name where old values are columns of the row."""
        start, star, end = self.before_image.partition("*")
        return (start, end) if star else None

    def names(self, name: str) -> bool:
        """Whether a table of this name is configured, here or for another source, or carries no rows."""
        return name in self.tables or name in self.others or name in self.ignored

    def table(self, name: str, topic: str = "", prefix: object = "") -> TableContext | None:
        """The configured table that a record of a table belongs to; None where there is none.

        A record that names a partition belongs to the table whose `partitions` has the name, or to the table of its own
        topic, which has the connector's prefix and a dot before the name.
        """
        if self.names(name):
            return self.tables.get(name)
        for table in self.tables.values():
            if any(_is_like(name, pattern) for pattern in table.partitions):
                return table
        of_topic = topic.removeprefix(f"{prefix}.") if isinstance(prefix, str) else topic
        same = (table for table in self.tables.values() if _in_topics(table.table) == of_topic)
        return next(same, None) if of_topic else None


def _is_like(name: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name, re.DOTALL) is not None


def is_topic_of(topic: str, table: str) -> bool:
    """Whether a topic has the name that Debezium gives the topic of a table, behind whatever prefix."""
    return f".{topic}".endswith(f".{_in_topics(table)}")


def _in_topics(table: str) -> str:
    return _NOT_IN_TOPICS.sub("_", table)


_NOT_IN_TOPICS = re.compile(r"[^A-Za-z0-9._-]")
"""What Debezium replaces in a table's name to make its topic's."""


def under_names[V](columns: Mapping[str, V], names: Mapping[str, str]) -> dict[str, V]:
    """Columns under other names; where one would take the name of another column, it keeps its own."""
    if names.keys().isdisjoint(columns):
        return columns if isinstance(columns, dict) else dict(columns)
    named: dict[str, V] = {}
    for name, value in columns.items():
        other = names.get(name, name)
        named[name if other in columns or other in named else other] = value
    return named


def key_text(keys: Sequence[str], row: Mapping[str, Any]) -> str | None:
    """Render the key columns as one JSON object, in the table's own order; None when one is missing or NULL."""
    values = {name: row.get(name) for name in keys}
    return None if None in values.values() else exact_json.dumps(values)
