"""Redshift's differences from PostgreSQL: types, table attributes, and COPY of Parquet from S3.

Only what ragstream's own statements use, from the pages COPY, "COPY from columnar data formats", CREATE TABLE and CREATE
VIEW of the Redshift Database Developer Guide. Literals and quoted names are never touched.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

PRELUDE = """
DO $$ BEGIN CREATE DOMAIN super AS jsonb; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
CREATE OR REPLACE FUNCTION json_parse(bytea) RETURNS super IMMUTABLE STRICT LANGUAGE sql
    AS $$ SELECT convert_from($1, 'UTF8')::jsonb::super $$;
CREATE OR REPLACE FUNCTION json_parse(text) RETURNS super IMMUTABLE STRICT LANGUAGE sql AS $$ SELECT $1::jsonb::super $$;
CREATE OR REPLACE FUNCTION super_text(super) RETURNS text IMMUTABLE STRICT LANGUAGE sql AS $$ SELECT $1::jsonb::text $$;
CREATE OR REPLACE FUNCTION json_typeof(jsonb) RETURNS text IMMUTABLE STRICT LANGUAGE sql AS $$ SELECT jsonb_typeof($1) $$;
CREATE OR REPLACE FUNCTION to_hex(bytea) RETURNS text IMMUTABLE STRICT LANGUAGE sql AS $$ SELECT encode($1, 'hex') $$;
"""
"""SUPER is a domain over jsonb here: numbers stay exact, the order of keys does not."""

_MEMBER = re.compile(
    r"""(?P<cast>CAST\()?(?P<column>\b_row\."[^"]+")(?P<path>(?:\."[^"]+")+)(?(cast) AS VARCHAR\(\d+\)\))"""
)
"""A path into a SUPER column of a row named `_row`, and its cast to text, which is the string without its quotation marks."""

_QUOTED = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")
_OTHERWISE = [
    (re.compile(r"\bVARBYTE\b(?:\s*\(\s*\d+\s*\))?", re.IGNORECASE), "bytea"),
    (re.compile(r"\b(?:DISTKEY|(?:COMPOUND\s+|INTERLEAVED\s+)?SORTKEY)\s*\([^)]*\)", re.IGNORECASE), ""),
    (re.compile(r"\bDISTSTYLE\s+\w+", re.IGNORECASE), ""),
    (re.compile(r"\bENCODE\s+\w+", re.IGNORECASE), ""),
    (re.compile(r"\bJSON_SERIALIZE\b", re.IGNORECASE), "super_text"),
    (re.compile(r"\bWITH\s+NO\s+SCHEMA\s+BINDING\b", re.IGNORECASE), ""),
]

_COPY = re.compile(
    r"""\s*COPY\s+(?P<table>[\w."]+)\s*(?P<columns>\([^)]*\))?\s+FROM\s+'(?P<url>s3://[^']+)'\s+"""
    r"""IAM_ROLE\s+(?:default|'[^']+')\s+FORMAT\s+(?:AS\s+)?PARQUET(?P<options>(?:\s+(?:MANIFEST|SERIALIZETOJSON|"""
    r"""FILLRECORD|ACCEPTINVCHARS|STATUPDATE\s+(?:ON|OFF)))*)\s*;?\s*""",
    re.IGNORECASE,
)
_ANY_COPY = re.compile(r"\s*COPY\b.*\bFROM\s+'s3://", re.IGNORECASE | re.DOTALL)


class DialectError(ValueError):
    """Redshift would refuse the statement, or the files it names."""


@dataclass(frozen=True)
class S3Copy:
    """A parsed COPY of Parquet files."""

    target: str
    url: str
    manifest: bool

    @property
    def statement(self) -> str:
        """The statement for PostgreSQL."""
        return f"COPY {self.target} FROM STDIN"


def copy_of(statement: str) -> S3Copy | None:
    """Parse a COPY from S3; None for any other statement. Raises DialectError for options that Parquet does not support."""
    match = _COPY.fullmatch(statement)
    if match:
        target = match["table"] + (f" {match['columns']}" if match["columns"] else "")
        return S3Copy(target, match["url"], "MANIFEST" in match["options"].upper())
    if _ANY_COPY.match(statement):
        raise DialectError("COPY from S3 takes IAM_ROLE and FORMAT AS PARQUET with its own options here")
    return None


def in_postgresql(statement: str) -> str:
    """Translate a Redshift statement for PostgreSQL."""
    parts = _QUOTED.split(_MEMBER.sub(_in_jsonb, statement))
    return "".join(part if at % 2 else _plain(part) for at, part in enumerate(parts))


def _in_jsonb(member: re.Match[str]) -> str:
    path = ",".join(member["path"].removeprefix(".").split("."))
    return f"({member['column']} {'#>>' if member['cast'] else '#>'} '{{{path}}}')"


def _plain(part: str) -> str:
    for pattern, replacement in _OTHERWISE:
        part = pattern.sub(replacement, part)
    return part


def data_of(s3: Any, copy: S3Copy) -> Iterator[bytes]:
    """The files' rows in PostgreSQL's text format; `s3` is boto3's client.

    A manifest names each file's length, as Redshift demands of columnar formats.
    """
    import io

    import pyarrow.parquet as pq

    for url, length in _files(s3, copy):
        body = _object(s3, url)
        if length is not None and length != len(body):
            raise DialectError(f"the manifest gives another length than {url} has")
        for batch in pq.ParquetFile(io.BytesIO(body)).iter_batches(1000):
            columns = [column.to_pylist() for column in batch.columns]
            lines = ("\t".join(map(_field, row)) + "\n" for row in zip(*columns, strict=True))
            yield "".join(lines).encode()


def _files(s3: Any, copy: S3Copy) -> list[tuple[str, int | None]]:
    bucket, _, key = copy.url.removeprefix("s3://").partition("/")
    if not copy.manifest:
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", [])
        files: list[tuple[str, int | None]] = [(f"s3://{bucket}/{entry['Key']}", None) for entry in listed]
        if not files:
            raise DialectError(f"the specified S3 prefix does not exist: {copy.url}")
        return files
    entries = json.loads(_object(s3, copy.url))["entries"]
    try:
        return [(entry["url"], int(entry["meta"]["content_length"])) for entry in entries]
    except KeyError:
        raise DialectError("a manifest of Parquet files needs meta.content_length") from None


def _object(s3: Any, url: str) -> bytes:
    from botocore.exceptions import ClientError

    bucket, _, key = url.removeprefix("s3://").partition("/")
    try:
        body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        raise DialectError(f"{url}: {error.response['Error']['Code']}") from None
    return body


def _field(value: Any) -> str:
    if value is None:
        return r"\N"
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, bytes):
        return rf"\\x{value.hex()}"
    if isinstance(value, (list, dict)):
        value = json.dumps(value, default=_json)
    text = format(value, "f") if isinstance(value, Decimal) else str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _json(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
