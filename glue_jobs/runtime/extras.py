"""Optional packages: which extra to install when one is missing."""

from __future__ import annotations

import traceback

from schemas.errors import ConfigurationError

_BOTO = ("aws", "bedrock", "capture", "dynamodb", "facts", "kinesis", "redshift", "registry", "sagemaker")
EXTRAS = {
    "pyspark": ("spark",), "py4j": ("spark",), "pandas": ("spark",), "delta": ("spark",),
    "pyarrow": ("lake", "spark", "facts", "redshift"), "deltalake": ("lake",),
    "aws_msk_iam_sasl_signer": ("kafka",), "confluent_kafka": ("kafka",),
    "fastavro": ("registry",), "aws_kinesis_agg": ("kinesis",), "google": ("kinesis",), "urllib3": ("kinesis",),
    "boto3": _BOTO, "botocore": _BOTO, "onnxruntime": ("onnx",), "pymongo": ("documentdb",), "bson": ("documentdb",),
    "opensearchpy": ("opensearch",), "psycopg": ("pgvector", "capture"), "pgvector": ("pgvector",), "pymysql": ("capture",),
    "redshift_connector": ("facts", "redshift"), "sqlglot": ("facts",), "valkey": ("memorydb",), "ir_measures": ("evaluate",),
    "joserfc": ("serve",), "prometheus_client": ("serve",), "sse_starlette": ("serve",), "starlette": ("serve", "mcp"),
    "uvicorn": ("serve", "mcp"), "h11": ("serve", "mcp"), "mcp": ("mcp",), "langchain_core": ("langchain",),
    "pytest": ("pytest",),
}  # fmt: skip
"""By import name: the extras of pyproject.toml that install the package, the most general first."""
_MODULE_EXTRAS = {"warehouse": "redshift", "capture_checks": "capture"}
"""Modules whose extra has another name than the module."""


def not_installed(error: ModuleNotFoundError) -> ConfigurationError | None:
    """An error that names the extra to install; None for a module of no extra, whose absence is a defect.

    Of several extras it names the one of the importing module: for boto3 imported by Kinesis, `kinesis`.
    """
    package = (error.name or "").partition(".")[0]
    if package == "local_stack":
        remedy = "it is no part of the wheel: run `make setup` in a checkout of the source, and `ragstream stack` there"
    elif package in EXTRAS:
        names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
        importers = {_MODULE_EXTRAS.get(part, part) for name in names for part in name.split(".")}
        extra = next((extra for extra in EXTRAS[package] if extra in importers), EXTRAS[package][0])
        remedy = f'pip install "ragstream[{extra}]"'
    else:
        return None
    return ConfigurationError(f"the package {package} is not installed: {remedy}", condition="PACKAGE_MISSING")
