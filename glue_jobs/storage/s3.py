"""Settings and jars of a Spark session for a lake or a checkpoint on S3; a session for folders gets none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glue_jobs.config.values import S3Environment, s3_environment
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOG_STORE = "ragstream.ConditionalPutLogStore"
CHECKPOINT_FILES = "org.apache.spark.internal.io.cloud.AbortableStreamBasedCheckpointFileManager"

_COMMITS = {f"spark.delta.logStore.{scheme}.impl": LOG_STORE for scheme in ("s3a", "s3")}
_CHECKPOINT = {
    # A rename on S3 is a copy, and not atomic; an upload that is completed or aborted is.
    "spark.sql.streaming.checkpointFileManagerClass": CHECKPOINT_FILES,
}
_REQUESTS = {
    # Skips the checks of a path and its parent folders before a write, one request each.
    "spark.hadoop.fs.s3a.performance.flags": "create,mkdir,delete",
}
_CREDENTIALS = {
    # The SDK's own chain: variables, profiles (also of a process, whose keys expire), web identity, container, instance.
    "spark.hadoop.fs.s3a.aws.credentials.provider": (
        "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
    ),
}
_JARS_HINT = (
    "On Glue name the jars by `--extra-jars`: `make logstore` builds dist/ragstream-logstore.jar, and spark-hadoop-cloud is"
    " on Maven (pom/s3.xml). Elsewhere run `make setup`, or name the folder of S3's jars in RAGSTREAM_S3_JARS."
)


def is_s3(location: str) -> bool:
    """Whether a location is on S3."""
    return location.startswith(("s3a://", "s3://"))


def bucket_client() -> Any:
    """An S3 client with boto3's credential chain, which renews expiring keys; it fails soon, since its callers retry."""
    import boto3
    from botocore.config import Config

    connect: Any = boto3.session.Session().client  # its overloads name every service in a literal
    config = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 2})
    return connect("s3", region_name=s3_environment().region, config=config)


def settings(lake: str, checkpoint: str, *, local: bool) -> dict[str, str]:
    """The settings that these locations need: none for folders; `local` for a JVM of this process."""
    if not (is_s3(lake) or is_s3(checkpoint)):
        return {}
    chosen = _COMMITS | _REQUESTS | (_CHECKPOINT if is_s3(checkpoint) else {})
    return chosen | (_started_here(s3_environment()) if local else {})


def _started_here(environment: S3Environment) -> dict[str, str]:
    """Settings of a local JVM; Glue has its own jars, endpoint and credentials."""
    if not environment.jars.is_dir():
        raise ConfigurationError(
            f"the jars of S3 are not installed: {environment.jars} is no folder.",
            condition="JARS_MISSING",
            hint=_JARS_HINT,
        )
    chosen = _CREDENTIALS | {"spark.driver.extraClassPath": f"{environment.jars}/*"}
    if environment.region:
        chosen["spark.hadoop.fs.s3a.endpoint.region"] = environment.region
    if environment.endpoint_url:
        chosen["spark.hadoop.fs.s3a.endpoint"] = environment.endpoint_url
        chosen["spark.hadoop.fs.s3a.path.style.access"] = "true"
        chosen["spark.hadoop.fs.s3a.connection.ssl.enabled"] = str(not environment.plain_http).lower()
    return chosen


def confirm_jars(session: SparkSession, chosen: dict[str, str]) -> None:
    """Raise ConfigurationError when a class of these settings is not on the session's class path."""
    names = {LOG_STORE, CHECKPOINT_FILES} & set(chosen.values())
    for name in sorted(names):
        try:
            session._jvm.org.apache.spark.util.Utils.classForName(name, False, True)  # type: ignore[union-attr] # noqa: FBT003, SLF001 - PySpark has no other way
        except Exception as error:
            if "ClassNotFoundException" not in str(error) and "NoClassDefFoundError" not in str(error):
                raise
            raise ConfigurationError(
                f"the class {name} is not on Spark's class path; without it S3 is not safe to write to.",
                condition="JARS_MISSING",
                hint=_JARS_HINT,
            ) from None
