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
    places = [pipeline["lake"]["path"], pipeline["checkpoint"], f"{package}/temporary"]
    statements = [
        _allow("Package", ("s3:GetObject",), _objects([package])),
        _allow("Data", _OBJECTS, _objects(places)),
        _allow("Buckets", _BUCKETS, [arn.split("/")[0] for arn in _objects([package, *places])]),
        _allow("Logs", ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"), ["arn:aws:logs:*:*:*"]),
        _allow("Metrics", ("cloudwatch:PutMetricData",), ["*"]),
        _allow("Vpc", _VPC, ["*"]),
    ]
    if secrets:
        named = [f"arn:aws:secretsmanager:*:*:secret:{name}-??????" for name in secrets]
        statements.append(_allow("Secrets", ("secretsmanager:GetSecretValue",), named))
    parts = [
        *listed(pipeline["source"]),
        *pipeline.get("sinks", ()),
        pipeline.get("embedding"),
        pipeline.get("warehouse"),
    ]
    statements += [statement for part in parts if part for statement in _of_part(part)]
    return {"Version": "2012-10-17", "Statement": _numbered(statements)}


def listed(part: Any) -> list[Any]:
    """One part where a list of them may stand."""
    return [part] if isinstance(part, Mapping) else list(part)


def uses_iam(source: Part) -> bool:
    """Whether a Kafka source signs in with the job's role."""
    options = str(source.get("options"))
    return source["type"] == "kafka" and ("AWS_MSK_IAM" in options or "software.amazon.msk.auth.iam" in options)


def _of_part(part: Part) -> Iterator[dict[str, Any]]:
    match part["type"]:
        case "kinesis":
            stream = f"arn:aws:kinesis:*:*:stream/{part['stream']}"
            consumer = _FAN_OUT if part.get("consumer") else ()
            yield _allow("Kinesis", [f"kinesis:{name}" for name in (*_KINESIS, *consumer)], [stream, f"{stream}/*"])
        case "kafka" if uses_iam(part):
            prefix = part["options"].get("groupIdPrefix", "spark-kafka-source")
            topics = part.get("topics") or ["*"]
            yield _allow("Kafka", ("kafka-cluster:Connect",), ["arn:aws:kafka:*:*:cluster/*"])
            yield _allow(
                "Topics", ("kafka-cluster:DescribeTopic", "kafka-cluster:ReadData"),
                [f"arn:aws:kafka:*:*:topic/*/*/{topic}" for topic in topics],
            )  # fmt: skip
            groups = ("kafka-cluster:DescribeGroup", "kafka-cluster:AlterGroup")
            yield _allow("Groups", groups, [f"arn:aws:kafka:*:*:group/*/*/{prefix}*"])
        case "bedrock":
            model = base_model_id(
                part["model"]
            )  # also where an inference profile leads to it, by whose name it goes as well
            names = [f"foundation-model/{model}", f"inference-profile/*{model}"]
            yield _allow("Model", ("bedrock:InvokeModel",), [f"arn:aws:bedrock:*:*:{name}" for name in names])
        case "opensearch" if (part.get("signing") or {}).get("service") == "aoss":
            yield _allow("Collection", ("aoss:APIAccessAll",), ["arn:aws:aoss:*:*:collection/*"])
        case "opensearch" if part.get("signing"):
            verbs = [f"es:ESHttp{verb}" for verb in ("Get", "Head", "Post", "Put", "Delete")]
            yield _allow("Domain", verbs, ["arn:aws:es:*:*:domain/*"])
        case "redshift":
            yield _allow("Staging", _OBJECTS, _objects([part["staging"]]))
            yield _allow("StagingBucket", _BUCKETS, [_objects([part["staging"]])[0].split("/")[0]])
            if part.get("data_api"):
                yield _allow("DataApi", [f"redshift-data:{name}" for name in _DATA_API], ["*"])
                signs_in = ("redshift-serverless:GetCredentials", "redshift:GetClusterCredentialsWithIAM")
                secret = part["data_api"].get("secret_arn")
                yield _allow("User", ("secretsmanager:GetSecretValue",) if secret else signs_in, [secret or "*"])


def _objects(locations: Sequence[str]) -> list[str]:
    plain = [re.sub(r"^s3a?://|/$", "", location) for location in locations]
    return [f"arn:aws:s3:::{place}{'' if place.endswith('*') else '/*'}" for place in plain]


def _allow(what: str, actions: Sequence[str], resources: Sequence[str]) -> dict[str, Any]:
    unique = list(dict.fromkeys(resources))
    return {"Sid": what, "Effect": "Allow", "Action": list(actions), "Resource": unique}


def _numbered(statements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each statement a name of its own, as IAM wants it."""
    names = [statement["Sid"] for statement in statements]
    return [s | {"Sid": f"{s['Sid']}{names[:at].count(s['Sid']) or ''}"} for at, s in enumerate(statements)]
