"""The rights that a pipeline's jobs need, by its sources, stores, model and warehouse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from embeddings.bedrock.codecs import base_model_id

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
"""Who may take the role."""

_OBJECTS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")
_BUCKETS = ("s3:ListBucket", "s3:GetBucketLocation")
_LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
_VPC = (
    *("ec2:DescribeSubnets", "ec2:DescribeSecurityGroups", "ec2:DescribeVpcEndpoints", "ec2:DescribeRouteTables"),
    *("ec2:DescribeVpcAttribute", "ec2:DescribeNetworkInterfaces", "ec2:CreateNetworkInterface"),
    *("ec2:DeleteNetworkInterface", "ec2:CreateTags", "ec2:DeleteTags", "glue:GetConnection", "glue:GetConnections"),
)
_KINESIS = ("DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords")
_FAN_OUT = ("DescribeStreamConsumer", "RegisterStreamConsumer", "SubscribeToShard")
_DATA_API = ("BatchExecuteStatement", "DescribeStatement", "GetStatementResult", "CancelStatement")

type Part = Mapping[str, Any]


def policy(pipeline: Part, package: str, secrets: Sequence[str]) -> dict[str, Any]:
    """The job role's policy; `package` is the s3:// folder of the package, `secrets` the names that are referred to."""
    sources = listed(pipeline["source"])
    parts = [
        *sources,
        *(source.get("registry") for source in sources),
        *pipeline.get("sinks", ()),
        pipeline.get("embedding"),
        warehouse := pipeline.get("warehouse"),
    ]
    written = [pipeline["lake"]["path"], pipeline["checkpoint"], f"{package}/temporary"]
    written += [warehouse["staging"]] if warehouse else []
    named = [f"arn:aws:secretsmanager:*:*:secret:{name}-??????" for name in secrets]
    statements = [
        _allow(["s3:GetObject"], _objects([package])),
        _allow(_OBJECTS, _objects(written)),
        _allow(_BUCKETS, sorted({arn.partition("/")[0] for arn in _objects([package, *written])})),
        _allow(_LOGS, ["arn:aws:logs:*:*:*"]),
        _allow(["cloudwatch:PutMetricData", *_VPC], ["*"]),
        *([_allow(["secretsmanager:GetSecretValue"], named)] if named else []),
        *(statement for part in parts if part for statement in _of_part(part)),
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def listed(part: Any) -> list[Any]:
    """One part where a list of them may stand."""
    return [part] if isinstance(part, Mapping) else list(part)


def uses_iam(source: Part) -> bool:
    """Whether a Kafka source signs in with the job's role."""
    options = str(source.get("options"))
    return source["type"] == "kafka" and ("AWS_MSK_IAM" in options or "software.amazon.msk.auth.iam" in options)


def _of_part(part: Part) -> Iterator[dict[str, Any]]:
    match part["type"]:
        case "glue":  # a registry
            yield _allow(["glue:GetSchemaVersion"], ["*"])  # asked for by the id of a version, which names no schema
        case "kinesis":
            stream = f"arn:aws:kinesis:*:*:stream/{part['stream']}"
            names = (*_KINESIS, *(_FAN_OUT if part.get("consumer") else ()))
            yield _allow([f"kinesis:{name}" for name in names], [stream, f"{stream}/*"])
        case "kafka" if uses_iam(part):
            topics = [f"arn:aws:kafka:*:*:topic/*/*/{topic}" for topic in part.get("topics") or ["*"]]
            prefix = part["options"].get("groupIdPrefix", "spark-kafka-source")
            yield _allow(["kafka-cluster:Connect"], ["arn:aws:kafka:*:*:cluster/*"])
            yield _allow(["kafka-cluster:DescribeTopic", "kafka-cluster:ReadData"], topics)
            yield _allow(
                ["kafka-cluster:DescribeGroup", "kafka-cluster:AlterGroup"], [f"arn:aws:kafka:*:*:group/*/*/{prefix}*"]
            )
        case "bedrock":
            model = base_model_id(part["model"])  # an inference profile leads to it, and is named after it
            names = (f"foundation-model/{model}", f"inference-profile/*{model}")
            yield _allow(["bedrock:InvokeModel"], [f"arn:aws:bedrock:*:*:{name}" for name in names])
        case "sagemaker":
            served = [f"endpoint/{part['endpoint'].lower()}"]
            served += [f"inference-component/{part['inference_component']}"] if part.get("inference_component") else []
            yield _allow(["sagemaker:InvokeEndpoint"], [f"arn:aws:sagemaker:*:*:{name}" for name in served])
        case "opensearch" if (part.get("signing") or {}).get("service") == "aoss":
            yield _allow(["aoss:APIAccessAll"], ["arn:aws:aoss:*:*:collection/*"])
        case "opensearch" if part.get("signing"):
            verbs = [f"es:ESHttp{verb}" for verb in ("Get", "Head", "Post", "Put", "Delete")]
            yield _allow(verbs, ["arn:aws:es:*:*:domain/*"])
        case "redshift" if part.get("data_api"):
            yield _allow([f"redshift-data:{name}" for name in _DATA_API], ["*"])
            signs_in = ("redshift-serverless:GetCredentials", "redshift:GetClusterCredentialsWithIAM")
            secret = part["data_api"].get("secret_arn")
            yield _allow(("secretsmanager:GetSecretValue",) if secret else signs_in, [secret or "*"])


def _objects(locations: Sequence[str]) -> list[str]:
    return [f"arn:aws:s3:::{re.sub('^s3a?://|/$', '', location)}/*" for location in locations]


def _allow(actions: Sequence[str], resources: Sequence[str]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
