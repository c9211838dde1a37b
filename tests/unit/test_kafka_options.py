"""Options of a Kafka source: Spark's names in, librdkafka's out, and everything else refused by its right name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sources.kafka.config import KafkaSourceConfig
from sources.kafka.options import IamLogin, connection_options, fetch_options, iam_login, refusals

SCRAM = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="me" password="a\\"b";'
IAM = {
    "kafka.security.protocol": "SASL_SSL",
    "kafka.sasl.mechanism": "AWS_MSK_IAM",
    "kafka.sasl.jaas.config": "software.amazon.msk.auth.iam.IAMLoginModule required;",
    "kafka.sasl.client.callback.handler.class": "software.amazon.msk.auth.iam.IAMClientCallbackHandler",
}


def test_a_user_with_a_password_is_translated() -> None:
    options = {
        "kafka.security.protocol": "SASL_SSL",
        "kafka.sasl.mechanism": "SCRAM-SHA-512",
        "kafka.sasl.jaas.config": SCRAM,
        "kafka.request.timeout.ms": "20000",
        "kafka.receive.buffer.bytes": "-1",
    }
    assert list(refusals(options)) == []
    translated = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "SCRAM-SHA-512",
        "sasl.username": "me",
        "sasl.password": 'a"b',
        "socket.timeout.ms": "20000",
        "socket.receive.buffer.bytes": "0",
    }
    assert connection_options(options) == translated
    options["kafka.sasl.jaas.config"] = "org.example.ScramLoginModule required username='me' password='a\"b';"
    assert connection_options(options) == translated


def test_stores_of_pem_are_translated_as_files_and_inline() -> None:
    files = {
        "kafka.security.protocol": "SSL",
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.location": "/ca.pem",
        "kafka.ssl.keystore.type": "PEM",
        "kafka.ssl.keystore.location": "/me.pem",
        "kafka.ssl.key.password": "secret",
        "kafka.ssl.endpoint.identification.algorithm": "",
    }
    assert list(refusals(files)) == []
    assert connection_options(files) == {
        "security.protocol": "SSL",
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/me.pem",
        "ssl.key.location": "/me.pem",
        "ssl.key.password": "secret",
        "ssl.endpoint.identification.algorithm": "none",
    }
    inline = {
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.certificates": "CA",
        "kafka.ssl.keystore.type": "PEM",
        "kafka.ssl.keystore.certificate.chain": "CHAIN",
        "kafka.ssl.keystore.key": "KEY",
    }
    assert list(refusals(inline)) == []
    assert connection_options(inline) == {"ssl.ca.pem": "CA", "ssl.certificate.pem": "CHAIN", "ssl.key.pem": "KEY"}


def test_tokens_are_got_as_the_options_say() -> None:
    base = {"kafka.security.protocol": "SASL_SSL", "kafka.sasl.mechanism": "OAUTHBEARER"}
    module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
    endpoint = {
        "kafka.sasl.oauthbearer.token.endpoint.url": "https://id/token",
        "kafka.sasl.jaas.config": f'{module} clientId="me" clientSecret="s" scope="read";',
    }
    assert list(refusals(base | endpoint)) == []
    translated = connection_options(base | endpoint)
    assert translated["sasl.oauthbearer.method"] == "oidc"
    assert translated["sasl.oauthbearer.client.secret"] == "s"
    assert "needs 'kafka.sasl.oauthbearer.token.endpoint.url'" in " ".join(refusals(base))


def test_cluster_of_msk_is_let_into_by_a_role_of_its_region() -> None:
    servers = "b-1.c.abc.c2.kafka.eu-west-1.amazonaws.com:9098,b-2.c.abc.c2.kafka.eu-west-1.amazonaws.com:9098"
    assert list(refusals(IAM)) == []
    assert connection_options(IAM) == {"security.protocol": "SASL_SSL", "sasl.mechanisms": "OAUTHBEARER"}
    assert iam_login(servers, IAM) == IamLogin("eu-west-1")
    serverless = "boot-abc.c1.kafka-serverless.us-east-1.amazonaws.com:9098"
    role = {"kafka.sasl.jaas.config": 'x required awsRoleArn="arn:aws:iam::1:role/r" awsRoleSessionName="s";'}
    assert iam_login(serverless, IAM | role) == IamLogin("us-east-1", None, "arn:aws:iam::1:role/r", "s")
    assert iam_login(servers, {"kafka.security.protocol": "SSL"}) is None


def test_fetching_is_tuned_by_kafkas_own_names() -> None:
    options = {"kafka.fetch.max.wait.ms": "5", "kafka.max.partition.fetch.bytes": "9", "kafka.client.rack": "a"}
    assert list(refusals(options)) == []
    assert fetch_options(options) == {"fetch.wait.max.ms": "5", "max.partition.fetch.bytes": "9", "client.rack": "a"}


def test_what_only_sparks_source_uses_is_let_through() -> None:
    harmless = {"kafka.max.poll.records": "10", "kafka.session.timeout.ms": "9000", "minPartitions": "4"}
    assert list(refusals(harmless)) == []
    assert connection_options(harmless) == fetch_options(harmless) == {}


@pytest.mark.parametrize(
    ("option", "value", "say"),
    [
        ("kafka.ssl.ca.location", "/ca", "say 'kafka.ssl.truststore.location'"),
        ("kafka.sasl.username", "me", "say 'kafka.sasl.jaas.config'"),
        ("kafka.fetch.wait.max.ms", "5", "say 'kafka.fetch.max.wait.ms'"),
        ("kafka.socket.timeout.ms", "5", "say 'kafka.request.timeout.ms'"),
        ("kafka.fetch.min.byte", "5", "say 'kafka.fetch.min.bytes'"),
        ("kafka.debug", "all", "is none of Kafka's consumer: leave it out"),
        ("kafka.auto.offset.reset", "latest", "cannot be set"),
        ("security.protocol", "SSL", "say 'kafka.security.protocol'"),
        ("minPartition", "3", "say 'minPartitions'"),
        ("kafka.ssl.truststore.location", "trust.jks", "convert it to PEM"),
        ("kafka.ssl.keystore.location", "key.jks", "convert it to PEM"),
        ("kafka.ssl.cipher.suites", "x", "OpenSSL's own suites"),
        ("kafka.sasl.login.callback.handler.class", "com.example.Mine", "Java code"),
    ],
)
def test_an_option_that_cannot_be_honoured_is_refused_by_its_right_name(option: str, value: str, say: str) -> None:
    with pytest.raises(ValidationError, match="option") as caught:
        KafkaSourceConfig.model_validate(
            {
                "type": "kafka",
                "envelope": "dms",
                "bootstrap_servers": "127.0.0.1:1",
                "topics": ["t"],
                "options": {option: value},
            }
        )
    assert say in str(caught.value)
    assert option in str(caught.value)


@pytest.mark.parametrize("mechanism", ["GSSAPI", "PLAIN", "SCRAM-SHA-256"])
def test_a_login_that_cannot_work_is_refused_without_its_password(mechanism: str) -> None:
    options = {
        "kafka.security.protocol": "SASL_PLAINTEXT",
        "kafka.sasl.mechanism": mechanism,
        "kafka.sasl.jaas.config": 'x required password="canary";',
    }
    said = " ".join(refusals(options))
    assert said
    assert "canary" not in said
