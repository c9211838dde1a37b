"""A stand-in for Redshift: PostgreSQL behind a proxy of ours that speaks the part of Redshift that ragstream uses.

It proves our statements' effect, transactions and retries, over the wire and with redshift_connector. It does not prove
Redshift's own planning, locking and limits: VARCHAR(n) counts characters here, SUPER is a domain over jsonb, VARBYTE is
bytea, names end at 63 bytes, distribution and sort keys are dropped.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from local_stack.ports import HOST
from local_stack.servers.aws import AwsEndpoint
from local_stack.servers.postgres import Postgres
from local_stack.service import PYTHON_ENVIRONMENT, Endpoint


class Redshift(Postgres):
    """One cluster. What was committed is there again after `kill` and `start`; COPY reads the S3 of `aws`."""

    part = "redshift"
    port_names = ("client", "server")
    settings: ClassVar[dict[str, str]] = {"default_transaction_isolation": "serializable", "TimeZone": "UTC"}
    authentication = "password"  # redshift_connector reads PostgreSQL's offer of SCRAM wrongly

    def __init__(self, directory: Path, aws: AwsEndpoint) -> None:
        """Open the service of this folder; `aws` may be down."""
        super().__init__(directory)
        self._aws = aws

    @property
    def endpoint(self) -> Endpoint:
        """`dsn` for psycopg, and the same in parts for redshift_connector."""
        user, password = self.login
        return {
            "dsn": self.dsn("postgres"), "host": HOST, "port": str(self.port), "database": "postgres", "user": user,
            "password": password,
        }  # fmt: skip

    def command(self) -> list[str]:
        """Run the proxy, which runs the server."""
        proxy = [sys.executable, "-m", "local_stack.standins.redshift.proxy", "--port", str(self.port)]
        return [*proxy, "--server-port", str(self.server_port), "--", *super().command()]

    @property
    def server_port(self) -> int:
        """PostgreSQL's own port, behind the proxy."""
        return self.port_of("server")

    def environment(self) -> dict[str, str]:
        """The address of S3, and the password by which the proxy creates the types."""
        return super().environment() | PYTHON_ENVIRONMENT | self._aws.variables | {"PGPASSWORD": self.login[1]}
