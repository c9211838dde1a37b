"""A pipeline's configuration: the models of its parts, loaded from YAML or JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError

from embeddings import EmbeddingConfig
from glue_jobs.config import problems as config_problems
from glue_jobs.config.values import Substitution, redaction, refuse_plain_endpoints, s3_environment, substitution
from glue_jobs.config.yaml_text import Document, parse
from lake.landing.breaker import RejectsConfig
from lake.layout import escape
from lake.registered_schemas import LandedSchemas
from memory import MemoryConfig
from reranking import RerankingConfig
from retrieval import AccessConfig, GenerationConfig, RetrievalConfig
from schemas.durations import Duration
from schemas.errors import ConfigurationError
from schemas.model import StrictModel
from schemas.tables import TableConfig
from service.config import ServeConfig
from sinks import SinkConfig
from sources import SourceConfig
from sources.capture.debezium import DebeziumCaptureConfig
from sources.capture.dms import DmsCaptureConfig
from sources.capture.rendering import CaptureConfig
from sources.registry.lookup import RegisteredSchemas
from transforms.context import DecodeContext, TableContext
from transforms.documents.planning import DocumentSpec
from warehouse.config import RedshiftConfig
from warehouse.facts.config import FactsConfig


def _as_list(value: object) -> object:
    """Accept a single part in place of a list."""
    return [value] if isinstance(value, dict) else value


def _absolute(path: object) -> object:
    """Make a folder absolute, since jobs run in other working directories; anything else is returned unchanged."""
    is_folder = isinstance(path, str) and path and not re.match(r"[a-z][a-z0-9+.-]*:", path)
    return str(Path(str(path)).expanduser().resolve()) if is_folder else path


Location = Annotated[str, Field(min_length=1), BeforeValidator(_absolute)]


class LakeConfig(StrictModel):
    """Where the lake is, and how often it is written."""

    path: Location
    """A folder, or s3a://BUCKET/PREFIX on AWS."""
    land_every: Duration = 5.0
    """Time between two commits of `changes`: each costs a commit, so seconds rather than milliseconds."""
    merge_every: Duration = 60.0
    """Time between two merges into the tables."""
    deletion_vectors: bool = False
    """Whether a merge into a table leaves its large files in place and marks rows in them as gone (ADR 0058). Merges into tables
    of over a million rows take less time then. Redshift Spectrum and deltalake's `to_pyarrow_table` cannot read such tables."""
    allow_plaintext: bool = False
    """Let AWS's variables (`AWS_ENDPOINT_URL`…) name an http:// endpoint of another machine."""


class EpochConfig(StrictModel):
    """A moment from which a source's changes rank above all before it: a failover, a restore, another server, a reload."""

    at: AwareDatetime
    """Commit time of the first change of the new log, or a whole second before a load begins. All readers order changes by it:
    start the jobs anew before it comes."""
    source: str | None = None
    """The source whose database failed over, or is loaded once more; default: all."""

    @property
    def start_us(self) -> int:
        """The moment in microseconds since 1970."""
        return round(self.at.timestamp() * 1_000_000)


class PipelineConfig(StrictModel):
    """One pipeline: from the sources' tables to the lake and the stores."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")
    """The pipeline's name, in logs and in what it creates."""
    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1), BeforeValidator(_as_list)] = Field(alias="source")
    """Where change records come from; one, or a list of named ones."""
    tables: tuple[TableConfig, ...] = Field(min_length=1)
    """The tables to carry; records of other tables are counted and ignored."""
    lake: LakeConfig
    rejects: RejectsConfig = RejectsConfig()
    """How many records landing and indexing may reject before they stop."""
    checkpoint: Location
    """Where the jobs keep their offsets: a folder of its own, or s3a://BUCKET/PREFIX on AWS."""
    embedding: EmbeddingConfig | None = None
    """The model that turns text into vectors."""
    sinks: tuple[SinkConfig, ...] = ()
    """The vector stores."""
    warehouse: RedshiftConfig | None = None
    """The warehouse that tables are loaded into."""
    facts: FactsConfig | None = None
    """SELECTs over the warehouse that answers cite beside documents."""
    retrieval: RetrievalConfig = RetrievalConfig()
    """When a question is answered."""
    access: AccessConfig | None = None
    """Who finds which rows, by columns that must equal the caller's claims; left out, everybody finds all."""
    reranking: RerankingConfig | None = None
    """The model that puts what a search found in a better order; without it, the order is that of similarity and words."""
    generation: GenerationConfig | None = None
    """The text model that words answers; without it, answers are sentences quoted from the documents."""
    memory: MemoryConfig | None = None
    """The memory of conversations and profiles; without it, each question is answered on its own."""
    serve: ServeConfig | None = None
    """The HTTP service; left out, `ragstream serve` listens at this machine alone, without a sign-in."""
    capture: Annotated[tuple[CaptureConfig, ...], BeforeValidator(_as_list)] = ()
    """The change data capture of the tables, for `ragstream capture` and `ragstream check`; no job reads it."""
    epochs: tuple[EpochConfig, ...] = ()
    """Failovers and restores of the sources' databases, and tables that are loaded once more."""
    hash_key: SecretStr | None = Field(default=None, min_length=16)
    """The key of columns with the rule `hash`, as `${secret:NAME}`, of 16 characters or more. Under another key equal values
    have other hashes, so it stays as it is."""
    continuous: bool = True
    """Let `index_documents` read Kafka and Kinesis by long-lived readers: milliseconds instead of tenths of a second. Off, and
    for recorded files and drains: micro-batches."""
    readers: int = Field(default=2, ge=1)
    """Most readers of a source: processes beside the executors' Python workers that share its partitions."""
    _secrets: frozenset[str] = PrivateAttr(default=frozenset())
    _ruled_elsewhere: frozenset[str] = PrivateAttr(default=frozenset())

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Show the name alone: options may hold secrets in plain text."""
        return [("name", self.name)]

    @cached_property
    def redact(self) -> Callable[[str], str]:
        """Takes every secret of this configuration out of a text, such as another library's log line."""
        return redaction(set(self._secrets))

    @property
    def ruled(self) -> frozenset[str]:
        """The pipeline's tables with rules for columns, also those that a run of some tables leaves out."""
        return self._ruled_elsewhere.union(table.table for table in self.tables if table.rules)

    @property
    def document_specs(self) -> dict[str, DocumentSpec]:
        """How rows become documents, by table that makes any."""
        return {table.table: spec for table in self.tables if (spec := DocumentSpec.of(table))}

    def source(self, name: str | None) -> SourceConfig:
        """The source of that name, without a name the first one; raises ConfigurationError where there is none."""
        configured = next((source for source in self.sources if name in (source.name, None)), None)
        if configured is None:
            raise ConfigurationError(
                f"source {name!r} is not configured in pipeline {self.name}.",
                condition="SOURCE_UNKNOWN",
                hint=f"It has {', '.join(source.name for source in self.sources)}.",
            )
        return configured

    def table(self, name: str) -> TableConfig:
        """The table of that name; raises ConfigurationError where there is none."""
        configured = next((table for table in self.tables if table.table == name), None)
        if configured is None:
            raise ConfigurationError(
                f"table {name!r} is not configured in pipeline {self.name}.",
                condition="TABLE_UNKNOWN",
                hint=f"It has {', '.join(table.table for table in self.tables)}.",
            )
        return configured

    def tables_of(self, source_name: str) -> tuple[TableConfig, ...]:
        """The tables that source owns."""
        return tuple(table for table in self.tables if self.owner(table) == source_name)

    def owner(self, table: TableConfig) -> str:
        """The name of the source that owns a table."""
        return table.source or self.sources[0].name


def load_config(path: str | Path) -> PipelineConfig:
    """Load a configuration file; raises one ConfigurationError with every problem in it."""
    config = parse_config(read_text(str(path)), str(path), substitution())
    if not config.lake.allow_plaintext:
        refuse_plain_endpoints()
    if any("://" in location for location in (config.lake.path, config.checkpoint)):
        s3_environment()  # sets the variables by which deltalake finds the endpoint
    return config


def parse_config(text: str, name: str, references: Substitution) -> PipelineConfig:
    """Build the configuration from text; messages call the file `name`."""
    written = parse(text, name)
    if not isinstance(written.value, dict):
        raise ConfigurationError(f"{name}: keys and values are expected.", condition="CONFIGURATION_INVALID")
    document = Document(name, references.apply(written.value), written.lines, written.problems)
    problems = [*written.problems, *references.problems, *config_problems.across_parts(document.value)]
    try:
        config = PipelineConfig.model_validate(document.value)
    except ValidationError as error:
        unresolved = {problem.path for problem in references.problems}
        invalid = config_problems.of_validation(error, document, PipelineConfig)
        problems += [problem for problem in invalid if problem.path not in unresolved]
        raise config_problems.error_of(problems, document) from None
    if problems:
        raise config_problems.error_of(problems, document)
    config._secrets = frozenset(references.secrets | set(_secret_values(config)))  # noqa: SLF001 - its own constructor
    return config


def of_tables(config: PipelineConfig, names: Collection[str]) -> PipelineConfig:
    """The same pipeline for some of its tables, from the earliest offsets, with a checkpoint of its own under the pipeline's.

    It may run beside the whole pipeline, since every store refuses what is not newer. Raises ConfigurationError for a
    table that is not configured.
    """
    chosen = tuple(config.table(name) for name in sorted(names))
    owners = {config.owner(table) for table in chosen}
    sources = [source for source in config.sources if source.name in owners]
    rewound = [source.model_copy(update=_default_start(source)) for source in sources]
    folder = "+".join(escape(table.table) for table in chosen)
    place = f"{config.checkpoint.rstrip('/')}/tables/{folder}"
    part = config.model_copy(update={"tables": chosen, "sources": tuple(rewound), "checkpoint": place})
    part._ruled_elsewhere = config.ruled  # noqa: SLF001 - its own constructor
    return part


def decode_context(config: PipelineConfig, source_name: str) -> DecodeContext:
    """What decoding needs to know of one source; it pickles for executors."""
    owned, source = config.tables_of(source_name), config.source(source_name)
    kept = LandedSchemas(config.lake.path, source_name)
    dms = [capture for capture in config.capture if isinstance(capture, DmsCaptureConfig)]
    return DecodeContext(
        envelope=source.envelope,
        registry=RegisteredSchemas(source.registry, kept) if source.registry else None,
        tables={table.table: table_context(table) for table in owned},
        others=frozenset(table.table for table in config.tables if table not in owned),
        ruled_others=config.ruled.difference(table.table for table in owned),
        hash_key=config.hash_key.get_secret_value().encode() if config.hash_key else b"",
        ignored=frozenset(
            name
            for capture in config.capture
            if isinstance(capture, DebeziumCaptureConfig)
            for name in (capture.signal_table, capture.heartbeat_table)
            if name is not None
        ),
        epoch_starts_us=tuple(
            sorted({epoch.start_us for epoch in config.epochs if epoch.source in (None, source_name)})
        ),
        before_image=source.before_image,
        lob_limit=next((1024 * capture.max_lob_kb for capture in dms if capture.source in (None, source_name)), 0),
    )


def decode_contexts(config: PipelineConfig) -> dict[str, DecodeContext]:
    """What decoding needs to know, by source."""
    return {source.name: decode_context(config, source.name) for source in config.sources}


def table_context(table: TableConfig) -> TableContext:
    """What decoding needs to know of one table."""
    rules, renamed = table.rules, table.renamed
    return TableContext(table.table, table.keys, table.declared, table.partitions, rules, renamed, table.needed_columns)


def is_configured(config: PipelineConfig, table: str) -> bool:
    """Whether any source carries the records of a table, given its name in a record."""
    return any(context.table(table) is not None for context in decode_contexts(config).values())


def _default_start(source: SourceConfig) -> dict[str, Any]:
    """The default start of a source: the earliest position that its stream retains."""
    fields = type(source).model_fields
    return {name: fields[name].default for name in ("starting", "starting_timestamp") if name in fields}


def read_text(path: str) -> str:
    """Read a configuration from a file, or from s3:// where a Glue job's argument points."""
    try:
        if path.startswith(("s3://", "s3a://")):
            return _read_s3(path)
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ConfigurationError(
            f"{path}: the configuration cannot be read: {reason}.",
            condition="CONFIGURATION_UNREADABLE",
            hint="Name a YAML or JSON file; `job_configs/helpdesk.yaml` is one that works.",
        ) from None


def _read_s3(path: str) -> str:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.split("://", 1)[1].partition("/")
    try:
        body: bytes = boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    except (BotoCoreError, ClientError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        raise OSError(0, code) from None
    return body.decode("utf-8")


def _secret_values(value: Any) -> list[str]:
    if isinstance(value, SecretStr):
        return [value.get_secret_value()]
    if isinstance(value, StrictModel):
        value = [getattr(value, name) for name in type(value).model_fields]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [secret for item in value for secret in _secret_values(item)] if isinstance(value, list | tuple) else []
