"""Options of a Kafka source, translated from the names of Spark and Kafka's Java client to librdkafka's. Pure.

The names are those of Kafka 3.9, "Consumer Configs", with Spark's prefix `kafka.`; librdkafka's are in its CONFIGURATION.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_PREFIX = "kafka."


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CONNECTION = {
    "client.dns.lookup": "client.dns.lookup",
    "client.id": "client.id",
    "connections.max.idle.ms": "connections.max.idle.ms",
    "metadata.max.age.ms": "topic.metadata.refresh.interval.ms",
    "receive.buffer.bytes": "socket.receive.buffer.bytes",
    "reconnect.backoff.max.ms": "reconnect.backoff.max.ms",
    "reconnect.backoff.ms": "reconnect.backoff.ms",
    "request.timeout.ms": "socket.timeout.ms",
    "retry.backoff.max.ms": "retry.backoff.max.ms",
    "retry.backoff.ms": "retry.backoff.ms",
    "security.protocol": "security.protocol",
    "send.buffer.bytes": "socket.send.buffer.bytes",
    "socket.connection.setup.timeout.ms": "socket.connection.setup.timeout.ms",
    "ssl.key.password": "ssl.key.password",
    "ssl.keystore.certificate.chain": "ssl.certificate.pem",
    "ssl.keystore.key": "ssl.key.pem",
    "ssl.truststore.certificates": "ssl.ca.pem",
    "ssl.truststore.location": "ssl.ca.location",
}
_FETCHING = {
    "check.crcs": "check.crcs",
    "client.rack": "client.rack",
    "fetch.max.bytes": "fetch.max.bytes",
    "fetch.max.wait.ms": "fetch.wait.max.ms",
    "fetch.min.bytes": "fetch.min.bytes",
    "group.id": "group.id",
    "isolation.level": "isolation.level",
    "max.partition.fetch.bytes": "max.partition.fetch.bytes",
}
_TRANSLATED_BY_VALUE = _words(
    """sasl.client.callback.handler.class sasl.jaas.config sasl.login.callback.handler.class sasl.mechanism
    sasl.oauthbearer.token.endpoint.url ssl.endpoint.identification.algorithm ssl.keystore.location ssl.keystore.type
    ssl.truststore.type"""
)
_FOR_SPARK_ALONE = _words(
    """allow.auto.create.topics auto.include.jmx.reporter default.api.timeout.ms enable.metrics.push
    exclude.internal.topics group.instance.id group.protocol group.remote.assignor heartbeat.interval.ms
    max.poll.interval.ms max.poll.records metadata.recovery.strategy metric.reporters metrics.num.samples
    metrics.recording.level metrics.sample.window.ms partition.assignment.strategy sasl.login.connect.timeout.ms
    sasl.login.read.timeout.ms sasl.login.refresh.buffer.seconds sasl.login.refresh.min.period.seconds
    sasl.login.refresh.window.factor sasl.login.refresh.window.jitter sasl.login.retry.backoff.max.ms
    sasl.login.retry.backoff.ms sasl.oauthbearer.clock.skew.seconds sasl.oauthbearer.expected.audience
    sasl.oauthbearer.expected.issuer sasl.oauthbearer.header.urlencode sasl.oauthbearer.scope.claim.name
    sasl.oauthbearer.sub.claim.name security.providers session.timeout.ms socket.connection.setup.timeout.max.ms
    ssl.enabled.protocols ssl.keymanager.algorithm ssl.keystore.password ssl.protocol ssl.provider
    ssl.secure.random.implementation ssl.trustmanager.algorithm ssl.truststore.password"""
)
"""Options of Kafka's Java client that mean nothing without a JVM and a consumer group: Spark's source alone gets them."""

_CANNOT_BE = {
    "sasl.login.class": "it is Java code; leave it out",
    "ssl.cipher.suites": "readers use OpenSSL's own suites of TLS 1.2 and 1.3; leave it out",
    "ssl.engine.factory.class": "it is Java code; give PEM files",
} | dict.fromkeys(
    _words(
        """auto.commit.interval.ms auto.offset.reset enable.auto.commit interceptor.classes key.deserializer
        value.deserializer"""
    ),
    "this source decides it itself; leave it out",
)
_NAMES = frozenset({*_CONNECTION, *_FETCHING, *_TRANSLATED_BY_VALUE, *_FOR_SPARK_ALONE, *_CANNOT_BE})
_OTHER_CLIENTS_NAMES = {theirs: ours for ours, theirs in (_CONNECTION | _FETCHING).items() if theirs not in _NAMES} | {
    "enable.ssl.certificate.verification": "ssl.truststore.location",
    "fetch.message.max.bytes": "max.partition.fetch.bytes",
    "metadata.max.age": "metadata.max.age.ms",
    "sasl.mechanisms": "sasl.mechanism",
    "sasl.oauthbearer.client.id": "sasl.jaas.config",
    "sasl.oauthbearer.client.secret": "sasl.jaas.config",
    "sasl.oauthbearer.scope": "sasl.jaas.config",
    "sasl.password": "sasl.jaas.config",
    "sasl.username": "sasl.jaas.config",
    "ssl.certificate.location": "ssl.keystore.location",
    "ssl.key.location": "ssl.keystore.location",
    "ssl.keystore.pem": "ssl.keystore.key",
}
_SPARK_OPTIONS = _words(
    """fetchOffset.numRetries fetchOffset.retryIntervalMs groupIdPrefix kafkaConsumer.pollTimeoutMs maxOffsetsPerTrigger
    maxRecordsPerPartition maxTriggerDelay minOffsetsPerTrigger minPartitions"""
)
"""Structured Streaming + Kafka Integration Guide; readers use `groupIdPrefix` alone."""

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM")
_HANDLERS = re.compile(
    r"software\.amazon\.msk\.auth\.iam\.IAM(OAuthBearerLogin|Client)CallbackHandler"
    r"|org\.apache\.kafka\.common\.security\.oauthbearer\.(secured\.|internals\.\w+\.)?OAuthBearer\w*CallbackHandler"
)
_JAAS = re.compile(r"""\b(\w+)\s*=\s*(?:(["'])((?:(?!\2)[^\\]|\\.)*)\2|([^\s;"']+))""")
_MSK_HOST = re.compile(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?(?::\d+)?$")


@dataclass(frozen=True, slots=True)
class IamLogin:
    """The principal and region of a token for MSK; None: the job's own."""

    region: str | None = None
    profile: str | None = None
    role_arn: str | None = None
    session_name: str | None = None


def refusals(options: Mapping[str, str]) -> Iterator[str]:
    """A message for each option that a reader cannot use, with the right one; never a value."""
    for name in options:
        kafka_name = name.lower().removeprefix(_PREFIX)
        if name.lower().startswith(_PREFIX):
            yield from _wrong_name(name, kafka_name)
        elif name.lower() not in {known.lower() for known in _SPARK_OPTIONS}:
            known = kafka_name in _NAMES or kafka_name in _OTHER_CLIENTS_NAMES
            right = (
                _PREFIX + _OTHER_CLIENTS_NAMES.get(kafka_name, kafka_name) if known else _closest(name, _SPARK_OPTIONS)
            )
            yield f"option {name!r} is none of Spark's Kafka source{_say(right)}"
    kafka = _named(options)
    yield from _wrong_login(kafka)
    for store in ("truststore", "keystore"):
        inline = any(part in kafka for part in (f"ssl.{store}.certificates", f"ssl.{store}.key"))
        if (inline or f"ssl.{store}.location" in kafka) and kafka.get(f"ssl.{store}.type", "JKS").upper() != "PEM":
            yield (
                f"option 'kafka.ssl.{store}.location': only PEM can be read, not Java key stores: convert it to PEM and set"
                f" kafka.ssl.{store}.type: PEM (Spark reads that as well)"
            )


def connection_options(options: Mapping[str, str]) -> dict[str, str]:
    """The connection settings of every client; see `iam_login` for MSK's own tokens."""
    kafka = _named(options)
    translated = {theirs: kafka[ours] for ours, theirs in _CONNECTION.items() if ours in kafka}
    for buffer in ("socket.receive.buffer.bytes", "socket.send.buffer.bytes"):
        if translated.get(buffer) == "-1":  # Java's value for the system's default
            translated[buffer] = "0"
    if "ssl.keystore.location" in kafka:
        translated["ssl.certificate.location"] = translated["ssl.key.location"] = kafka["ssl.keystore.location"]
    if kafka.get("ssl.endpoint.identification.algorithm") == "":
        translated["ssl.endpoint.identification.algorithm"] = "none"
    return translated | (_login(kafka) if _is_sasl(kafka) else {})


def fetch_options(options: Mapping[str, str]) -> dict[str, str]:
    """The fetch settings of a consumer."""
    kafka = _named(options)
    return {theirs: kafka[ours] for ours, theirs in _FETCHING.items() if ours in kafka}


def group_prefix(options: Mapping[str, str]) -> str:
    """The prefix of consumer groups: that of Spark's, so that the rights for Spark's groups suffice."""
    return {name.lower(): value for name, value in options.items()}.get("groupidprefix", "spark-kafka-source")


def iam_login(bootstrap_servers: str, options: Mapping[str, str]) -> IamLogin | None:
    """The login where a cluster of MSK authenticates by IAM; None elsewhere."""
    kafka = _named(options)
    if not (_is_sasl(kafka) and _is_iam(kafka)):
        return None
    jaas = _jaas(kafka)
    hosts = (_MSK_HOST.search(server.strip()) for server in bootstrap_servers.split(","))
    region = next((host[1] for host in hosts if host), None)
    return IamLogin(region, jaas.get("awsProfileName"), jaas.get("awsRoleArn"), jaas.get("awsRoleSessionName"))


def _wrong_name(option: str, name: str) -> Iterator[str]:
    if name in _CANNOT_BE:
        yield f"option {option!r} cannot be set: {_CANNOT_BE[name]}"
    elif name in _OTHER_CLIENTS_NAMES:
        yield f"option {option!r} is named as librdkafka names it{_say(_PREFIX + _OTHER_CLIENTS_NAMES[name])}"
    elif name not in _NAMES and not name.startswith("sasl.kerberos."):
        closest = _closest(name, _NAMES)
        yield f"option {option!r} is none of Kafka's consumer{_say(closest and _PREFIX + closest)}"


def _wrong_login(kafka: Mapping[str, str]) -> Iterator[str]:
    mechanism = kafka.get("sasl.mechanism", "GSSAPI")
    if _is_sasl(kafka) and mechanism not in _MECHANISMS:
        yield f"option 'kafka.sasl.mechanism': {mechanism[:20]} cannot be used; use one of {', '.join(_MECHANISMS)}"
    for name in ("sasl.login.callback.handler.class", "sasl.client.callback.handler.class"):
        if name in kafka and not _HANDLERS.fullmatch(kafka[name].strip()):
            yield f"option 'kafka.{name}' is Java code that a reader cannot run; only Kafka's own handlers and those of MSK can"
    jaas = _jaas(kafka)
    if _is_sasl(kafka) and mechanism.startswith(("PLAIN", "SCRAM")) and not {"username", "password"} <= jaas.keys():
        yield 'option \'kafka.sasl.jaas.config\' must hold username="…" and password="…"'
    if _is_iam(kafka) and "awsRoleExternalId" in jaas:
        yield "option 'kafka.sasl.jaas.config': awsRoleExternalId cannot be used; give the job's role the rights itself"
    without_token = "sasl.oauthbearer.token.endpoint.url" not in kafka and "unsecuredLoginStringClaim_sub" not in jaas
    if mechanism == "OAUTHBEARER" and not _is_iam(kafka) and without_token:
        yield "option 'kafka.sasl.mechanism': OAUTHBEARER needs 'kafka.sasl.oauthbearer.token.endpoint.url', or MSK's handler"


def _login(kafka: Mapping[str, str]) -> dict[str, str]:
    mechanism, jaas = kafka.get("sasl.mechanism", ""), _jaas(kafka)
    if mechanism not in ("OAUTHBEARER", "AWS_MSK_IAM"):
        return {
            "sasl.mechanisms": mechanism,
            "sasl.username": jaas.get("username", ""),
            "sasl.password": jaas.get("password", ""),
        }
    bearer = {"sasl.mechanisms": "OAUTHBEARER"}
    if _is_iam(kafka):
        return bearer
    if "sasl.oauthbearer.token.endpoint.url" in kafka:
        return bearer | {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": kafka["sasl.oauthbearer.token.endpoint.url"],
            "sasl.oauthbearer.client.id": jaas.get("clientId", ""),
            "sasl.oauthbearer.client.secret": jaas.get("clientSecret", ""),
            **({"sasl.oauthbearer.scope": jaas["scope"]} if "scope" in jaas else {}),
        }
    principal = jaas.get("unsecuredLoginStringClaim_sub", "")
    return bearer | {
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": f"principal={principal}",
    }


def _named(options: Mapping[str, str]) -> dict[str, str]:
    """Kafka's own options, by their names without Spark's prefix."""
    lowered = {name.lower(): value for name, value in options.items()}
    return {name.removeprefix(_PREFIX): value for name, value in lowered.items() if name.startswith(_PREFIX)}


def _is_sasl(kafka: Mapping[str, str]) -> bool:
    return kafka.get("security.protocol", "").upper().startswith("SASL")


def _is_iam(kafka: Mapping[str, str]) -> bool:
    handlers = (kafka.get(f"sasl.{side}.callback.handler.class", "") for side in ("login", "client"))
    return kafka.get("sasl.mechanism") == "AWS_MSK_IAM" or any("msk.auth.iam" in handler for handler in handlers)


def _jaas(kafka: Mapping[str, str]) -> dict[str, str]:
    entries = _JAAS.findall(kafka.get("sasl.jaas.config", ""))
    return {name: bare or re.sub(r"\\(.)", r"\1", quoted) for name, _, quoted, bare in entries}


def _closest(name: str, names: frozenset[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, 1, 0.75)), None)


def _say(right: str | None) -> str:
    return f": say {right!r}" if right else ": leave it out"
