"""`check` of a location on S3: the bucket, the rights, and conditional puts, on which every commit depends."""

from __future__ import annotations

import re
import uuid

from glue_jobs.storage.s3 import bucket_client
from schemas.errors import ConfigurationError, UnavailableError

_RIGHTS = "s3:GetObject, s3:PutObject and s3:DeleteObject on it and s3:ListBucket on the bucket"
_HINTS = {
    "NoSuchBucket": "Create the bucket, or correct `{key}`.",
    "404": "Create the bucket, or correct `{key}`.",
    "PermanentRedirect": "Set AWS_REGION to the bucket's Region.",
    "ExpiredToken": "Renew the credentials; those that expire are renewed by a role, a profile or a credential process.",
}


def check(location: str, key: str) -> None:
    """Put, list, read and delete a small object of its own.

    Raises ConfigurationError, or UnavailableError where S3 does not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    parts = re.fullmatch(r"s3a?://([^/]+)(?:/(.*))?", location)
    if parts is None:
        raise ConfigurationError(
            f"{key}: {location} is neither a folder nor s3a://BUCKET/PREFIX.",
            condition="LOCATION_NOT_WRITABLE",
            hint=f"Correct `{key}`.",
        )
    bucket, prefix = parts[1], (parts[2] or "").strip("/")
    try:
        conditional = _probe(bucket, f"{prefix}/.writable-{uuid.uuid4().hex}".lstrip("/"))
    except NoCredentialsError:
        hint = "Set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives them."
        raise _refused(location, key, "no credentials", hint) from None
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        if int(error.response["ResponseMetadata"]["HTTPStatusCode"]) >= 500:
            raise UnavailableError(f"{key}: S3 does not take a file at {location} ({code})") from None
        hint = _HINTS.get(code, f"Grant this role or user {_RIGHTS}.").format(key=key)
        raise _refused(location, key, code, hint) from None
    except BotoCoreError as error:
        raise UnavailableError(
            f"{key}: S3 cannot be reached for {location} ({type(error).__name__})",
            hint="Check the network, AWS_REGION and, for an endpoint of your own, AWS_ENDPOINT_URL.",
        ) from None
    if not conditional:
        hint = "Use S3 itself or a server with conditional writes (If-None-Match); without them commits are lost."
        raise _refused(location, key, "it ignores the condition of a put (If-None-Match)", hint)


def _probe(bucket: str, name: str) -> bool:
    """Whether the second of two conditional puts was refused."""
    from botocore.exceptions import ClientError

    s3 = bucket_client()
    s3.put_object(Bucket=bucket, Key=name, Body=b"", IfNoneMatch="*")
    try:
        s3.list_objects_v2(Bucket=bucket, Prefix=name, MaxKeys=1)
        s3.get_object(Bucket=bucket, Key=name)["Body"].read()
        s3.put_object(Bucket=bucket, Key=name, Body=b"", IfNoneMatch="*")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 412:
            raise
        return True
    else:
        return False
    finally:
        s3.delete_object(Bucket=bucket, Key=name)


def _refused(location: str, key: str, why: str, hint: str) -> ConfigurationError:
    return ConfigurationError(
        f"{key}: {location} cannot be written: {why}.", condition="LOCATION_NOT_WRITABLE", hint=hint
    )
