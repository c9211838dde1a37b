"""The configuration of a warehouse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from schemas.aws import AwsAccess
from schemas.durations import seconds
from schemas.model import StrictModel
from schemas.transport import is_this_machine, weakness


class DataApiConfig(StrictModel):
    """Redshift through its Data API: no network route to the cluster and no client package is needed."""

    cluster: str | None = None
    """A provisioned cluster's identifier; or name a workgroup."""
    workgroup: str | None = None
    """A serverless workgroup's name or ARN."""
    database: str = Field(min_length=1)
    secret_arn: str | None = None
    """The secret with the database user. Left out: the job's own IAM identity is the user."""
    timeout_seconds: float = Field(default=1800.0, gt=0)
    """How long a transaction may take before it is cancelled and tried again."""

    @model_validator(mode="after")
    def _one_place(self) -> DataApiConfig:
        if (self.cluster is None) == (self.workgroup is None):
            raise ValueError("name a `cluster` or a `workgroup`")
        return self


class RedshiftConfig(AwsAccess):
    """A Redshift schema that holds one table and one view for each source table."""

    type: Literal["redshift"]
    host: str | None = None
    """Of the cluster or workgroup, for a connection of our own; or give `data_api`."""
    port: int = Field(default=5439, ge=1, le=65535)
    database: str | None = None
    user: str | None = None
    password: SecretStr | None = None
    ssl: bool = True
    """Encrypted, and the server's name and certificate looked at. Only turned off for a local stand-in."""
    data_api: DataApiConfig | None = None
    """The Data API in place of `host`."""
    schema_name: str = Field(default="public", alias="schema", pattern=r"^[a-z_][a-z0-9_]{0,126}$")
    """The Redshift schema; it is created where it is missing. One pipeline's own: a table is known in it by the source's name."""
    names: dict[str, str] = Field(default_factory=dict)
    """Names in the warehouse by source table, where the source table's own will not do."""
    staging: str = Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*()=-]+)*/?$")
    """s3://BUCKET/PREFIX in the cluster's Region: Parquet files stand there while they are loaded."""
    iam_role: str = Field(default="default", pattern=r"^(default|arn:[A-Za-z0-9:/_+=,.@-]+)$")
    """The role with which Redshift reads `staging`: an ARN, or `default` for the cluster's default role."""
    load_every: Annotated[float, Field(ge=60), BeforeValidator(seconds)] = 60.0
    """Time between two loads; a commit in Redshift is dear, so at most one a minute."""

    @field_validator("names")
    @classmethod
    def _plain_names(cls, names: dict[str, str]) -> dict[str, str]:
        if any(not name or name != name.lower() or len(name.encode()) > NAME_BYTES for name in names.values()):
            raise ValueError(f"a name in the warehouse is in lower case and at most {NAME_BYTES} bytes long")
        return names

    @model_validator(mode="after")
    def _one_way_in(self) -> RedshiftConfig:
        direct = (self.host, self.database, self.user, self.password)
        if self.data_api is None and None in direct:
            raise ValueError("give `host`, `database`, `user` and `password`, or `data_api`")
        if self.data_api is not None and self.host is not None:
            raise ValueError("give `host` or `data_api`, not both")
        return self

    def weaknesses(self) -> Iterator[str]:
        """Tell a warehouse of another machine without TLS, and an http:// endpoint."""
        if self.host is not None and not self.ssl and not is_this_machine(self.host):
            yield weakness("ssl", "leave it out")
        yield from super().weaknesses()


NAME_BYTES = 120
"""A name of Redshift has 127 bytes; ours get a suffix of up to six."""
