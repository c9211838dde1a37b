"""The configuration of a pipeline's tables."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from string import Formatter
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from schemas.languages import Language
from schemas.model import StrictModel

Column = Annotated[str, Field(min_length=1)]

Rule = Literal["drop", "hash", "mask"]
"""What becomes of a column whose values must not travel."""
RULES: tuple[Rule, ...] = get_args(Rule)

Drift = Literal["evolve", "ignore", "reject", "stop"]
"""What becomes of a column that is not as the table's first schema announced it."""


class ChunkConfig(StrictModel):
    """How a document is cut."""

    max_tokens: int = Field(default=240, ge=16, le=8000)
    """Most tokens of a chunk, estimated as four bytes of UTF-8 a token."""
    overlap: int = Field(default=0, ge=0)
    """Tokens a chunk repeats of the one before it."""

    @model_validator(mode="after")
    def _overlap_fits(self) -> ChunkConfig:
        if self.overlap * 2 > self.max_tokens:
            msg = "overlap must be at most half of max_tokens"
            raise ValueError(msg)
        return self


class DocumentConfig(StrictModel):
    """How a row becomes a document."""

    template: str = Field(min_length=1)
    """The embedded text, with `{column}` where a column's value goes. Only these columns can cause a model call."""
    chunk: ChunkConfig = ChunkConfig()
    max_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """Bytes of UTF-8 that a document's text may have. A longer one is not embedded: it is a reject, and is not found."""
    metadata: tuple[Column, ...] = ()
    """Columns kept beside the document for filters; a change of them alone never calls the model."""
    language: Language | None = None
    """The language of the text, by which the lexical half of a search finds its words; `simple` takes them as they stand.
    Left out: the store's `language`."""

    @field_validator("template")
    @classmethod
    def _names_columns(cls, template: str) -> str:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
        if not fields:
            msg = "the template names no column; write {column}"
            raise ValueError(msg)
        if any(not name or spec or conversion for name, spec, conversion in fields):
            msg = "write {column} only: no empty braces, no format and no conversion"
            raise ValueError(msg)
        return template

    @property
    def template_columns(self) -> tuple[str, ...]:
        """The columns the template names, each once."""
        return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(self.template) if name))


class TableConfig(StrictModel):
    """One table of the source."""

    table: str = Field(pattern=r"^[^.]+\..+$")
    """Schema and table, as the source names them: `public.tickets`. MySQL and MariaDB: `database.table`. SQL Server:
    `database.schema.table`. Oracle: `SCHEMA.TABLE`, in its upper case, or with the database before it."""
    keys: tuple[Column, ...] = Field(min_length=1)
    """The columns of the primary key. Or others, if they are unique, never NULL, and told of deleted rows (docs/formats.md)."""
    columns: dict[Column, str] = Field(default_factory=dict)
    """Types declared by hand, where the source announces none or less: `price: decimal(10,2)`. DMS tells an array as text
    and a time stamp without its zone (UTC): `tags: array<text>`, `seen: timestamptz`. And columns whose values must not
    travel: `ssn: drop`, `email: hash`, `name: mask`; with a type too, `born: date hash`."""
    partitions: tuple[str, ...] = ()
    """Names of tables whose records are this one's, with `*` for any text: `[public.visits_*]`. DMS sends the changes of a
    partitioned table under the names of its partitions; a connector as `ragstream capture` renders it does not. A table that
    is renamed at the source keeps its name here, and has the new one in this list (docs/runbook.md)."""
    drift: Drift = "evolve"
    """What becomes of columns that differ from the first schema that the source announced. `evolve`: new columns and wider types
    are taken in. `ignore`: new columns are left out of the current table and the warehouse's view, and types stay. `reject`: the
    same, and each value of a new column is a reject. `stop`: merge and load stop."""
    drift_exceptions: dict[Column, Drift] = Field(default_factory=dict)
    """Columns with another `drift` than the table's. One that `keys` or the template names stops the job when it is gone, unless
    it stands here."""
    renamed: dict[Column, Column] = Field(default_factory=dict)
    """Columns that were renamed at the source: the name that records have, and the name that this pipeline goes on with:
    `text: body`."""
    document: DocumentConfig | None = None
    """Left out: the table goes to the lake only."""
    source: str | None = None
    """The source that owns the table, where the pipeline has several."""

    @model_validator(mode="after")
    def _rules_fit(self) -> TableConfig:
        for name, rule in self.rules.items():
            if name.casefold() in map(str.casefold, self.keys) and rule != "hash":
                msg = f"column {name} is of the key and has the rule {rule}: rows could not be told apart. Write `{name}: hash`"
                raise ValueError(msg)
            if self.document and name in self.document.template_columns and rule != "mask":
                msg = f"column {name} has the rule {rule} and is named by document.template: take it out of one of them"
                raise ValueError(msg)
            if self.document and name in self.document.metadata and rule == "drop":
                msg = f"column {name} has the rule drop and is named by document.metadata: take it out of one of them"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _renamed_once(self) -> TableConfig:
        if chained := sorted(set(self.renamed.values()) & self.renamed.keys()):
            msg = (
                f"`renamed` has {', '.join(chained)} on both sides: name for each name in records the one that is kept"
            )
            raise ValueError(msg)
        return self

    @property
    def rules(self) -> dict[str, Rule]:
        """The columns whose values must not travel."""
        return {name: rule for name, text in self.columns.items() if (rule := _split(text)[1])}

    @property
    def declared(self) -> dict[str, str]:
        """The declared types of values as they come."""
        return {name: kind for name, text in self.columns.items() if (kind := _split(text)[0])}

    @property
    def types(self) -> dict[str, str]:
        """The declared types of values as they are kept: a hash and a mask are text, a dropped column has no value."""
        rules = self.rules
        kept = {name: text for name, text in self.columns.items() if rules.get(name) != "drop"}
        return {name: "text" if name in rules else text for name, text in kept.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the table may have at the source: its own, and those of `partitions` that are written out."""
        return (self.table, *(name for name in self.partitions if "*" not in name))

    def existing_in[V](self, tables: Mapping[str, V]) -> V | None:
        """What the source has under the first of these names."""
        return next((tables[name] for name in self.names if name in tables), None)

    def drift_of(self, column: str) -> Drift:
        """What becomes of a column that differs from the first schema."""
        return self.drift_exceptions.get(column, self.drift)

    @property
    def needed_columns(self) -> frozenset[str]:
        """The columns without which rows cannot be told apart, or documents not be made."""
        texts = self.document.template_columns if self.document else ()
        return frozenset((*self.keys, *texts)).difference(self.drift_exceptions)

    @property
    def named_columns(self) -> dict[str, list[str]]:
        """The columns that each key of this section names."""
        named = {"keys": list(self.keys), "columns": list(self.columns)}
        if self.document:
            named["document.template"] = list(self.document.template_columns)
            named["document.metadata"] = list(self.document.metadata)
        return named

    def unknown_columns(self, known: Collection[str]) -> list[str]:
        """One sentence for each named column that the table does not have; `known` are the source's names."""
        known = {self.renamed.get(name, name) for name in known}
        return [
            f"{self.table} has no column {name!r}, which `{key}` names; {_suggestion(name, known)}"
            for key, names in self.named_columns.items()
            for name in names
            if name not in known
        ]


def _split(text: str) -> tuple[str, Rule | None]:
    """The type and the rule of a column, as `columns` has them; either may be missing."""
    kind, _, last = text.strip().rpartition(" ")
    rule = next((rule for rule in RULES if rule == last), None)
    return (kind.strip(), rule) if rule else (text, None)


def _suggestion(name: str, known: Collection[str]) -> str:
    near = nearest(name, known)
    return f"near it: {', '.join(near)}" if near else f"it has {', '.join(sorted(known))}"


def nearest(name: str, known: Collection[str]) -> list[str]:
    """At most three known names similar to a name, best first."""
    by_folded = {other.casefold(): other for other in known}
    return [by_folded[folded] for folded in difflib.get_close_matches(name.casefold(), by_folded)]
