"""Endpoints that speak AWS's wire formats: one with many services, and one for Kinesis that reshards as Kinesis does."""

from __future__ import annotations

import os
import sys
from typing import Any

import boto3
from botocore.config import Config

from local_stack import cache
from local_stack.ports import HOST
from local_stack.service import Endpoint, Service, program

REGION = "eu-central-1"
_CREDENTIAL = "local"  # neither endpoint checks it; real keys never reach a local server


class AwsEndpoint(Service):
    """A server that boto3 can be pointed at."""

    @property
    def section(self) -> str:
        """Both kinds answer to the same key."""
        return "aws"

    @property
    def endpoint(self) -> Endpoint:
        """`endpoint_url`, `region`, `access_key`, `secret_key`."""
        return {"endpoint_url": self.url, "region": REGION, "access_key": _CREDENTIAL, "secret_key": _CREDENTIAL}

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables by which a process reaches this endpoint and no other."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": _CREDENTIAL,
            "AWS_SECRET_ACCESS_KEY": _CREDENTIAL,
        }

    def client(self, service: str, timeout: float = 30.0, endpoint_url: str = "") -> Any:
        """Return boto3's client of one AWS service, without retries.

        Timeout in seconds; `endpoint_url` names a proxy in front of this endpoint.
        """
        connect: Any = boto3.client  # its overloads name every service in a literal
        return connect(
            service,
            endpoint_url=endpoint_url or self.url,
            region_name=REGION,
            aws_access_key_id=_CREDENTIAL,
            aws_secret_access_key=_CREDENTIAL,
            config=Config(connect_timeout=timeout, read_timeout=timeout, retries={"total_max_attempts": 1}),
        )

    def handshake(self) -> None:
        """List the streams."""
        self.client("kinesis", timeout=2.0).list_streams()


class Ministack(AwsEndpoint):
    """Kinesis, S3, Secrets Manager and DynamoDB.

    Its state survives `stop` and `start`, not `kill`. It splits a shard wrongly (the parent's records vanish): where
    shards change, use `KinesisLocal`.
    """

    part = "aws"

    def command(self) -> list[str]:
        """Run it in the foreground."""
        return [str(cache.ministack_bin())]

    def environment(self) -> dict[str, str]:
        """Its whole configuration."""
        return {
            "GATEWAY_PORT": str(self.port),
            "BIND_HOST": HOST,
            "MINISTACK_REGION": REGION,
            "LOG_LEVEL": "WARNING",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self.data / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self.data / "s3"),
        }


class Moto(AwsEndpoint):
    """AWS Glue Schema Registry, which no other endpoint here has. Its state is gone after `stop` and `kill`."""

    part = "glue"

    @property
    def section(self) -> str:
        """A key of its own: it stands for no other endpoint."""
        return self.part

    def command(self) -> list[str]:
        """Run it in the foreground, with this interpreter."""
        return [sys.executable, "-m", "moto.server", "--host", HOST, "--port", str(self.port)]

    def handshake(self) -> None:
        """List the registries."""
        self.client("glue", timeout=2.0).list_registries()


class KinesisLocal(AwsEndpoint):
    """Kinesis alone, with parents and children of split and merged shards.

    Slow to put to (150 calls, 1,000 records a second). Its state survives but for the last second before a `kill`.
    """

    part = "kinesis"
    port_names = ("client", "tls")
    stop_timeout = 2.0  # it waits for idle clients to leave, for ever; all it had a second ago is on disk
    persist_interval = "1s"
    """Between two writes of all that it has; a test that fills it may have it write less often from its next start on."""

    def command(self) -> list[str]:
        """Run it in the foreground."""
        return [program("node", "Install Node.js 18 or later."), str(cache.kinesis_local())]

    def environment(self) -> dict[str, str]:
        """Its whole configuration; the short durations only spare the tests from waiting."""
        script = cache.kinesis_local()
        durations = ("CREATE_STREAM", "DELETE_STREAM", "MERGE_SHARDS", "SPLIT_SHARD", "UPDATE_SHARD_COUNT")
        return {
            "KINESIS_MOCK_PLAIN_PORT": str(self.port),
            "KINESIS_MOCK_TLS_PORT": str(self.port_of("tls")),
            "KINESIS_MOCK_CERT_PATH": os.fspath(script.with_name("server.json")),
            "AWS_REGION": REGION,
            "LOG_LEVEL": "WARN",
            "SHOULD_PERSIST_DATA": "true",
            "PERSIST_PATH": str(self.data),
            "PERSIST_INTERVAL": self.persist_interval,
            **{f"{name}_DURATION": "50ms" for name in durations},
        }
