"""References `${env:NAME}` and `${secret:NAME}`, and all else that the product reads from the environment.

`${env:NAME}` is looked up in the environment, then in `.ragstream/stack.json` (written by `ragstream stack up`), where
`KAFKA_BOOTSTRAP_SERVERS` is `kafka.bootstrap_servers` and so on (`STACK_NAMES` has the other spellings).
`${secret:NAME}` is looked up in the environment (NAME, then in upper case), then in `.ragstream/secrets.json`, then, where
an AWS region is set, in AWS Secrets Manager. `${env:NAME:-DEFAULT}` gives a default; an empty value counts as absent.
`${claim:NAME}` stays as it is in `access`: it is the caller's.
Substituted text is not searched for references again.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from glue_jobs.config.yaml_text import Path, Problem
from schemas.errors import ConfigurationError
from schemas.transport import weak_url

STATE_FOLDER = ".ragstream"
"""The local stack's folder of endpoints and passwords, under the working directory."""

STACK_NAMES = {
    "KAFKA_BOOTSTRAP": ("kafka", "bootstrap_servers"),
    "AWS_DEFAULT_REGION": ("aws", "region"),
    "AWS_ACCESS_KEY_ID": ("aws", "access_key"),
    "AWS_SECRET_ACCESS_KEY": ("aws", "secret_key"),
}
"""Variables whose name is not simply SECTION_KEY of stack.json."""

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_FORM = re.compile(r"(env|secret):([A-Za-z_][\w./-]*?)(?::-(.*))?", re.DOTALL)


@dataclass
class Substitution:
    """Replaces references in a parsed configuration, and collects the secrets so that logs can redact them."""

    environment: Mapping[str, str]
    folder: FilePath
    secrets: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def apply(self, value: Any, path: Path = ()) -> Any:
        """Return the value with every reference replaced; one that cannot be resolved becomes a problem."""
        if isinstance(value, dict):
            return {key: self.apply(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.apply(item, (*path, at)) for at, item in enumerate(value)]
        if isinstance(value, str) and "${" in value:
            return _REFERENCE.sub(lambda match: self._replace(match[1], path), value) or None
        return value

    def _replace(self, reference: str, path: Path) -> str:
        if reference.startswith("claim:") and path[:1] == ("access",):
            return f"${{{reference}}}"  # of each caller
        form = _FORM.fullmatch(reference)
        if form is None:
            hint = "Write ${env:NAME}, ${env:NAME:-DEFAULT} or ${secret:NAME}."
            self.problems.append(Problem(path, f"${{{reference}}} is no reference", hint))
            return "?"
        kind, name, default = form.groups()
        value = self._env(name) if kind == "env" else self._secret(name, path)
        if value is None and default is None:
            self.problems.append(_missing(kind, name, path))
            return "?"
        if value is not None and kind == "secret":
            self.secrets.add(value)
        return value if value is not None else default

    def _env(self, name: str) -> str | None:
        return self.environment.get(name) or stack_value(self._json("stack.json"), name)

    def _secret(self, name: str, path: Path) -> str | None:
        local = self.environment.get(name) or self.environment.get(name.upper())
        local = local or self._json("secrets.json").get(name)
        if local or not self._on_aws():
            return local
        return self._from_aws(name, path)

    def _on_aws(self) -> bool:
        return bool(self.environment.get("AWS_REGION") or self.environment.get("AWS_DEFAULT_REGION"))

    def _from_aws(self, name: str, path: Path) -> str | None:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        refuse_plain_endpoints()  # secrets are never fetched in plain text, whatever the configuration allows
        try:
            answer = boto3.client("secretsmanager").get_secret_value(SecretId=name)
        except (BotoCoreError, ClientError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__
            if code != "ResourceNotFoundException":
                hint = "Grant the job's role secretsmanager:GetSecretValue on it, or check the network to the service."
                self.problems.append(
                    Problem(path, f"AWS Secrets Manager does not give the secret {name} ({code})", hint)
                )
                return "?"
            return None
        return answer.get("SecretString")

    def _json(self, name: str) -> dict[str, Any]:
        file = self.folder / name
        try:
            content = json.loads(file.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            self.problems.append(
                Problem((), f"{file} cannot be read ({type(error).__name__})", "Run `ragstream stack up`.")
            )
            return {}
        return content if isinstance(content, dict) else {}


def substitution() -> Substitution:
    """A substitution by this process's environment and working directory."""
    return Substitution(os.environ, FilePath(STATE_FOLDER))


def under_spark_submit() -> bool:
    """Whether this process was started by spark-submit, which has chosen the master and its memory already."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def use_this_python_for_workers() -> None:
    """Set the variables by which PySpark chooses its workers' interpreter, unless they are set: it has no setting for it."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)


def use_region_of_profile() -> None:
    """Set AWS_REGION where only AWS's configuration file names the Region: deltalake and `${secret:…}` read the variable."""
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        import boto3

        if region := boto3.session.Session().region_name:
            os.environ["AWS_REGION"] = region


@dataclass(frozen=True)
class S3Environment:
    """The environment's settings for S3; credentials are left to each client's own chain."""

    endpoint_url: str | None
    region: str | None
    jars_folder: str | None

    @property
    def jars(self) -> FilePath:
        """The folder with the jars of Hadoop's S3 connector, AWS's SDK and our log store."""
        if self.jars_folder:
            return FilePath(self.jars_folder)
        import pyspark

        return FilePath(pyspark.__path__[0]) / "jars-s3"

    @property
    def plain_http(self) -> bool:
        """Whether the endpoint is reached without TLS, as a local one is."""
        return (self.endpoint_url or "").startswith("http://")


def refuse_plain_endpoints() -> None:
    """Raise ConfigurationError for a variable that sends AWS's clients to another machine without TLS."""
    for name, value in sorted(os.environ.items()):
        if name.startswith("AWS_ENDPOINT_URL"):
            for weak in weak_url(name, value):
                hint = "For a trusted network `lake.allow_plaintext: true` allows it."
                raise ConfigurationError(weak.partition(", or set")[0], condition="PLAINTEXT_ENDPOINT", hint=hint)


def s3_environment() -> S3Environment:
    """Read AWS's variables for Hadoop, which does not read them itself as Arrow, deltalake and boto3 do.

    Sets two variables that deltalake alone needs: to use AWS's credential chain with an endpoint that is not AWS's, and to
    allow http.
    """
    get = os.environ.get
    environment = S3Environment(
        get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL"),
        get("AWS_REGION") or get("AWS_DEFAULT_REGION"),
        get("RAGSTREAM_S3_JARS"),
    )
    if environment.endpoint_url:
        os.environ.setdefault("AWS_FORCE_CREDENTIAL_LOAD", "true")
    if environment.plain_http:
        os.environ.setdefault("AWS_ALLOW_HTTP", "true")
    return environment


def stack_value(endpoints: Mapping[str, Any], name: str) -> str | None:
    """The value of a variable in `.ragstream/stack.json`; None when that part is not running."""
    section, _, key = name.lower().partition("_")
    section, key = STACK_NAMES.get(name, (section, key))
    endpoint = endpoints.get(section)
    value = endpoint.get(key) if isinstance(endpoint, dict) else None
    return None if value is None else str(value)


def redaction(secrets: set[str]) -> Callable[[str], str]:
    """A function that masks the secrets in a text, passwords inside connection strings included."""
    hidden = {part for secret in secrets for part in (secret, *_passwords(secret)) if len(part) >= 6}
    if not hidden:
        return lambda text: text
    pattern = re.compile("|".join(re.escape(part) for part in sorted(hidden, key=len, reverse=True)))
    return lambda text: pattern.sub("***", text)


def _passwords(secret: str) -> list[str]:
    return re.findall(r"://[^:/@\s]*:([^@\s]+)@", secret) + re.findall(r"password=['\"]?([^\s'\";]+)", secret)


def _missing(kind: str, name: str, path: Path) -> Problem:
    if kind == "env":
        hint = f"Set the environment variable {name}, or run `ragstream stack up` for the local servers."
        return Problem(path, f"the variable {name} is not set", hint)
    hint = (
        f"Set the environment variable {name.upper()}, add it to {STATE_FOLDER}/secrets.json, or, on AWS, create it in"
        " Secrets Manager and set AWS_REGION."
    )
    return Problem(path, f"the secret {name} is not set", hint)
