"""Packages that only some parts need: what to install where one is missing, in one line."""

from __future__ import annotations

import traceback

from schemas.errors import ConfigurationError

_BOTO = ("aws", "bedrock", "capture", "kinesis", "redshift")
EXTRAS = {
    "pyspark": ("spark",), "py4j": ("spark",), "pandas": ("spark",), "delta": ("spark",),
    "pyarrow": ("lake", "spark", "redshift"), "deltalake": ("lake",),
    "aws_msk_iam_sasl_signer": ("kafka",), "confluent_kafka": ("kafka",),
    "aws_kinesis_agg": ("kinesis",), "google": ("kinesis",), "urllib3": ("kinesis",),
    "boto3": _BOTO, "botocore": _BOTO, "onnxruntime": ("onnx",), "pymongo": ("documentdb",), "bson": ("documentdb",),
    "opensearchpy": ("opensearch",), "psycopg": ("pgvector", "capture"), "pgvector": ("pgvector",),
    "redshift_connector": ("redshift",),
}  # fmt: skip
"""Packages by the name they are imported by, and the extras of pyproject.toml that install each, the most general first."""
_ROOMS = {"warehouse": "redshift", "captured": "capture"}
"""Rooms whose extra has another name than the room."""


def not_installed(error: ModuleNotFoundError) -> ConfigurationError | None:
    """Say in one line what to install; None for a module of no extra, which is missing by a fault of this program.

    Of several extras with the package it names the one of the room that imports it: boto3 for Kinesis comes by `kinesis`.
    """
    package = (error.name or "").partition(".")[0]
    if package == "local_stack":
        mend = "it is no part of the wheel: run `make setup` in a checkout of the source, and `ragstream stack` there"
    elif package in EXTRAS:
        names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
        rooms = {_ROOMS.get(part, part) for name in names for part in name.split(".")}
        extra = next((extra for extra in EXTRAS[package] if extra in rooms), EXTRAS[package][0])
        mend = f'pip install "ragstream[{extra}]"'
    else:
        return None
    return ConfigurationError(f"the package {package} is not installed: {mend}", condition="PACKAGE_MISSING")
