"""Files that are staged on S3 for a load: written by workers, named by a manifest, removed when all is committed."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from embeddings import clients
from schemas.aws import AwsAccess
from schemas.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from warehouse.config import RedshiftConfig

_BATCH_ROWS = 4096
_FILE_BYTES = 64 * 1024 * 1024
"""Redshift loads files side by side: "1 MB to 1 GB after compression" each ("Loading data files")."""


@functools.cache
def client_of(access: AwsAccess, service: str) -> Any:
    """The process's client of one service."""
    settings = {"retries": {"mode": "adaptive", "total_max_attempts": 5}, "connect_timeout": 5}
    return clients.client_of(access, service, settings)


def access_of(config: RedshiftConfig) -> AwsAccess:
    """The keys of a configuration by which AWS is reached, without the others: clients are cached by them."""
    return AwsAccess(**{name: getattr(config, name) for name in AwsAccess.model_fields})


@dataclass(frozen=True)
class StagedFile:
    """A file that was uploaded."""

    url: str
    size: int


@dataclass(frozen=True)
class StagingWriter:
    """Writes one table's files of one batch, under names nobody else uses; plain data, so it pickles."""

    access: AwsAccess
    bucket: str
    folder: str

    def put(self, name: str, body: bytes) -> StagedFile:
        """Upload a file; raises UnavailableError or ConfigurationError."""
        key = f"{self.folder}/{name}"
        with _translated(self.bucket):
            client_of(self.access, "s3").put_object(Bucket=self.bucket, Key=key, Body=body)
        return StagedFile(f"s3://{self.bucket}/{key}", len(body))

    def manifest(self, files: Sequence[StagedFile]) -> str:
        """Name files for COPY; it fails unless each is there and has its length."""
        entries = [{"url": f.url, "mandatory": True, "meta": {"content_length": f.size}} for f in files]
        return self.put(f"{uuid.uuid4().hex}.manifest", json.dumps({"entries": entries}).encode()).url

    def rows(self, table: pa.Table) -> str:
        """Stage a few rows of the driver's, and return their manifest."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return self.manifest([self.put(f"{uuid.uuid4().hex}.parquet", buffer.getvalue())])

    def clear(self) -> None:
        """Remove what was staged here, by this run of the batch or by one that was killed."""
        s3 = client_of(self.access, "s3")
        with _translated(self.bucket):
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.folder}/"):
                keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
                if keys:
                    s3.delete_objects(Bucket=self.bucket, Delete={"Objects": keys, "Quiet": True})


def staging(config: RedshiftConfig, folder: str) -> StagingWriter:
    """Where files of a folder are staged."""
    bucket, _, prefix = config.staging.removeprefix("s3://").partition("/")
    return StagingWriter(access_of(config), bucket, "/".join(p for p in (prefix.strip("/"), folder) if p))


class ParquetFiles:
    """Writes rows into files of one schema: a file begins with its first row and is uploaded when it is large."""

    def __init__(self, writer: StagingWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._buffer = io.BytesIO()
        self._parquet: pq.ParquetWriter | None = None
        self.files: list[StagedFile] = []

    def add(self, row: dict[str, Any]) -> None:
        """Take a row; a column it does not name is NULL."""
        self._rows.append(row)
        if len(self._rows) >= _BATCH_ROWS:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Upload the last file, unless something failed."""
        if error is None:
            self._flush()
            self._end()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._buffer, self._schema)
        self._parquet.write_batch(pa.RecordBatch.from_pylist(self._rows, self._schema))
        self._rows = []
        if self._buffer.tell() > _FILE_BYTES:
            self._end()

    def _end(self) -> None:
        if self._parquet is None:
            return
        self._parquet.close()
        self.files.append(self._writer.put(f"{uuid.uuid4().hex}.parquet", self._buffer.getvalue()))
        self._buffer, self._parquet = io.BytesIO(), None


@contextlib.contextmanager
def _translated(bucket: str) -> Iterator[None]:
    """Raise boto3's errors as ours."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
        if code in {"AccessDenied", "NoSuchBucket", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "404"}:
            raise ConfigurationError(
                f"warehouse: the staging bucket {bucket} refuses the job ({code})",
                condition="STAGING_REFUSED",
                hint="create it in the cluster's Region, and grant the job's role s3:PutObject, s3:GetObject, "
                "s3:DeleteObject and s3:ListBucket on warehouse.staging",
            ) from None
        raise UnavailableError(
            f"warehouse: S3 does not take a staged file ({code})", hint="check warehouse.staging and the network"
        ) from None
