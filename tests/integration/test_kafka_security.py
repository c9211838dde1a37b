"""Kafka's listeners by the options of Spark and MSK: each lets `check` and the feed in, or says why not, without a secret."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from confluent_kafka.admin import AclOperation

from local_stack.stack import Stack
from schemas.errors import ConfigurationError
from sources.feeds import open_feed
from sources.kafka import source as kafka
from sources.kafka.config import KafkaSourceConfig
from sources.kafka.iam import token_source
from sources.kafka.options import iam_login
from tests.secure_broker import KEY_PASSWORD, PASSWORD, USER, SecureBroker
from tests.waiting import eventually

SECONDS = 12.0
"""Within which a user who is not let in is told so."""
MODULE = "org.apache.kafka.common.security"
ACCESS_KEY, SECRET_KEY = "AKIDEXAMPLE", "canary-secret-key"
IAM = {
    "kafka.sasl.mechanism": "AWS_MSK_IAM",
    "kafka.sasl.jaas.config": "software.amazon.msk.auth.iam.IAMLoginModule required;",
    "kafka.sasl.client.callback.handler.class": "software.amazon.msk.auth.iam.IAMClientCallbackHandler",
}
type Options = dict[str, str]


@pytest.fixture(scope="module")
def broker(local_stack: Stack) -> Iterator[SecureBroker]:
    """A broker with a record in the topics `t`, which alice may read, `seen`, which she may describe, and `hidden`."""
    server = SecureBroker(local_stack.directory / "kafka-secure")
    server.start()
    producer = server.producer()
    for topic in ("t", "seen", "hidden"):
        server.create_topic(topic)
        producer.produce(topic, b"1")
    assert producer.flush(30) == 0
    server.grant("t", AclOperation.READ)
    server.grant("seen", AclOperation.DESCRIBE)
    yield server
    server.remove()


@pytest.fixture
def job_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


def tls(broker: SecureBroker, authority: str = "ca") -> Options:
    trust = {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": str(broker.pem(authority))}
    return {"kafka.security.protocol": "SSL"} | trust


def certificate(broker: SecureBroker) -> Options:
    keys = {"kafka.ssl.keystore.type": "PEM", "kafka.ssl.keystore.location": str(broker.pem("user"))}
    return tls(broker) | keys | {"kafka.ssl.key.password": KEY_PASSWORD}


def inline(broker: SecureBroker) -> Options:
    key, begin, chain = broker.pem("user").read_text().partition("-----BEGIN CERTIFICATE-----")
    assert chain.count("END CERTIFICATE") == 2  # the broker knows only the authority above the second
    return {
        "kafka.security.protocol": "SSL",
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.certificates": broker.pem("ca").read_text(),
        "kafka.ssl.keystore.type": "PEM",
        "kafka.ssl.keystore.key": key,
        "kafka.ssl.keystore.certificate.chain": begin + chain,
        "kafka.ssl.key.password": KEY_PASSWORD,
    }


def password(broker: SecureBroker, mechanism: str, module: str, word: str = PASSWORD) -> Options:
    login = f'{MODULE}.{module} required username="{USER}" password="{word}";'
    return sasl(broker, {"kafka.sasl.mechanism": mechanism, "kafka.sasl.jaas.config": login})


def scram(broker: SecureBroker) -> Options:
    return password(broker, "SCRAM-SHA-512", "scram.ScramLoginModule")


def plain(broker: SecureBroker) -> Options:
    return password(broker, "PLAIN", "plain.PlainLoginModule")


def token(broker: SecureBroker) -> Options:
    login = f'{MODULE}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="{USER}";'
    return sasl(broker, {"kafka.sasl.mechanism": "OAUTHBEARER", "kafka.sasl.jaas.config": login})


def sasl(broker: SecureBroker, login: Options) -> Options:
    return tls(broker) | login | {"kafka.security.protocol": "SASL_SSL"}


def config_for(server: str, options: Options, topic: str = "t") -> KafkaSourceConfig:
    return KafkaSourceConfig(type="kafka", envelope="dms", bootstrap_servers=server, topics=[topic], options=options)


def read(config: KafkaSourceConfig) -> list[bytes | None]:
    """What the feed brings first; raises what it raises until then."""
    feed = open_feed(config, "/checkpoint")
    try:
        feed.follow({f"{(config.topics or [''])[0]}/0": 0})
        values: list[bytes | None] = []

        def came() -> bool:
            values.extend(record.value for record in feed.fetch(0.1).records)
            return bool(values)

        eventually(came)
        return values
    finally:
        feed.close()


@pytest.mark.parametrize(
    ("listener", "way"),
    [("tls", tls), ("mtls", certificate), ("mtls", inline), ("scram", scram), ("plain", plain), ("oauth", token)],
)
def test_check_and_feed_are_let_in(broker: SecureBroker, listener: str, way: Callable[..., Options]) -> None:
    config = config_for(broker.server_of(listener), way(broker))
    kafka.check(config)
    assert read(config) == [b"1"]


REFUSED: dict[str, tuple[str, Callable[[SecureBroker], Options], str, str]] = {
    "another authority": (
        "tls",
        lambda b: tls(b, "other-ca"),
        "certificate verify failed",
        "kafka.ssl.truststore.location",
    ),
    "no certificate": ("mtls", tls, "alert", "kafka.ssl.keystore.location"),
    "the key's password": (
        "mtls",
        lambda b: certificate(b) | {"kafka.ssl.key.password": "canary"},
        "ssl.key.location failed",
        "kafka.ssl.key.password",
    ),
    "SCRAM's password": (
        "scram",
        lambda b: password(b, "SCRAM-SHA-512", "scram.ScramLoginModule", "canary"),
        "invalid credentials",
        "kafka.sasl.jaas.config",
    ),
    "PLAIN's password": (
        "plain",
        lambda b: password(b, "PLAIN", "plain.PlainLoginModule", "canary"),
        "Invalid username or password",
        "kafka.sasl.jaas.config",
    ),
    "another mechanism": ("scram", plain, "supported mechanisms: SCRAM-SHA-512", "kafka.sasl.mechanism"),
    "MSK's token": ("oauth", lambda b: sasl(b, IAM), "invalid_token", "kafka-cluster:Connect"),
}


@pytest.mark.parametrize(("listener", "way", "said", "mend"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.usefixtures("job_of_aws")
def test_who_is_not_let_in_is_told_what_to_mend(
    broker: SecureBroker, listener: str, way: Callable[..., Options], said: str, mend: str
) -> None:
    refused(config_for(broker.server_of(listener), way(broker)), said, mend)


def test_a_broker_of_another_name_is_not_spoken_to(broker: SecureBroker) -> None:
    server = broker.server_of("tls").replace("127.0.0.1", "localhost")
    refused(config_for(server, tls(broker)), "certificate verify failed", "as their certificate does")


def test_a_topic_needs_the_right_to_read_it(broker: SecureBroker) -> None:
    server, options = broker.server_of("scram"), scram(broker)
    with pytest.raises(ConfigurationError, match="no topic hidden") as hidden:
        kafka.check(config_for(server, options, "hidden"))
    assert "right to describe it" in hidden.value.hint
    with pytest.raises(ConfigurationError, match="TOPIC_AUTHORIZATION_FAILED") as seen:
        read(config_for(server, options, "seen"))
    assert "READ" in seen.value.hint


def refused(config: KafkaSourceConfig, said: str, mend: str) -> None:
    for ask in (kafka.check, read):
        with pytest.raises(ConfigurationError) as caught:
            ask(config)
        assert said in caught.value.message
        assert mend in caught.value.hint
        secrets = ("canary", PASSWORD, KEY_PASSWORD, SECRET_KEY, "BEGIN", "X-Amz-Signature")
        assert not any(secret in str(caught.value) for secret in secrets)


@pytest.mark.usefixtures("job_of_aws")
def test_a_token_of_msk_is_a_signed_request_for_the_brokers_region() -> None:
    login = iam_login("b-1.c.abc.c2.kafka.us-east-2.amazonaws.com:9098", {"kafka.security.protocol": "SASL_SSL"} | IAM)
    assert login is not None
    signed, expires = token_source(login)(None)
    assert_signed(signed, "us-east-2")
    assert 600 < expires - time.time() <= 900


@pytest.mark.usefixtures("job_of_aws")
def test_the_token_reaches_the_broker_as_it_was_signed(broker: SecureBroker) -> None:
    with overheard(broker.port_of("oauth_in_the_open")) as (port, heard):
        config = config_for(f"127.0.0.1:{port}", IAM | {"kafka.security.protocol": "SASL_PLAINTEXT"})
        with pytest.raises(ConfigurationError, match="invalid_token"):  # no broker but MSK's knows whose it is
            read(config)
    sent = re.search(rb"n,,\x01auth=Bearer ([\w-]+)\x01\x01", b"".join(heard))
    assert sent is not None
    assert_signed(sent[1].decode(), "eu-west-1")


def assert_signed(signed: str, region: str) -> None:
    """As MSK wants it: base64url, without padding, of a presigned URL (aws-msk-iam-auth, "Details")."""
    url = urlsplit(base64.urlsafe_b64decode(signed + "=" * (-len(signed) % 4)).decode())
    asked = {name: values[0] for name, values in parse_qs(url.query).items()}
    assert (url.scheme, url.hostname) == ("https", f"kafka.{region}.amazonaws.com")
    assert asked["Action"] == "kafka-cluster:Connect"
    assert asked["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert re.fullmatch(rf"{ACCESS_KEY}/\d{{8}}/{region}/kafka-cluster/aws4_request", asked["X-Amz-Credential"])
    assert asked["X-Amz-Expires"] == "900"
    assert re.fullmatch(r"[0-9a-f]{64}", asked["X-Amz-Signature"])
    assert SECRET_KEY not in url.query


@contextmanager
def overheard(target: int) -> Iterator[tuple[int, list[bytes]]]:
    """Pass connections on to a port; what clients sent is kept."""
    heard: list[bytes] = []

    def passed(source: socket.socket, sink: socket.socket, kept: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                kept.append(piece)
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):  # until the listener is closed
            while True:
                client, server = listener.accept()[0], socket.create_connection(("127.0.0.1", target))
                for ends in ((client, server, heard), (server, client, [])):
                    threading.Thread(target=passed, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1], heard
