"""A broker that lets clients in by TLS, certificates, passwords and tokens, and by rights on topics."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import ClassVar

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from local_stack.ports import HOST
from local_stack.servers.kafka import Broker
from local_stack.service import program

USER, PASSWORD = "alice", "pass'wo=rd;1"
"""Of SCRAM and PLAIN; as the subject of a token as well. Without a right on any topic until one is granted."""
KEY_PASSWORD = "key-password"
_MODULE = "org.apache.kafka.common.security"
_LISTENERS = {
    "tls": "SSL",
    "mtls": "SSL",
    "scram": "SASL_SSL",
    "plain": "SASL_SSL",
    "oauth": "SASL_SSL",
    "oauth_in_the_open": "SASL_PLAINTEXT",
}


class SecureBroker(Broker):
    """The plain listener is for the tests' own clients, who may do all, as who comes with a certificate or by TLS alone may."""

    port_names: ClassVar[tuple[str, ...]] = ("client", "controller", *_LISTENERS)

    def server_of(self, listener: str) -> str:
        """Host and port of a listener."""
        return f"{HOST}:{self.port_of(listener)}"

    def pem(self, name: str) -> Path:
        """File of `ca`, `other-ca`, `user` (key with a password, certificate, intermediate authority) or `broker`."""
        return self.directory / f"{name}.pem"

    def prepare(self) -> None:
        """Make the certificates before the broker needs them."""
        if not self.pem("user").exists():
            self._make_certificates()
        super().prepare()

    def settings(self) -> dict[str, str]:
        """The listeners beside the plain one, who is let in by each, and who may do what."""
        listeners = "".join(f",{name.upper()}://{self.server_of(name)}" for name in _LISTENERS)
        protocols = "".join(f",{name.upper()}:{protocol}" for name, protocol in _LISTENERS.items())
        plain = super().settings()
        token = {
            f"listener.name.{name}.{key}": value
            for name in ("oauth", "oauth_in_the_open")
            for key, value in (
                ("sasl.enabled.mechanisms", "OAUTHBEARER"),
                ("oauthbearer.sasl.jaas.config", f"{_MODULE}.oauthbearer.OAuthBearerLoginModule required;"),
            )
        }
        return (
            plain
            | {name: plain[name] + listeners for name in ("listeners", "advertised.listeners")}
            | {
                "listener.security.protocol.map": plain["listener.security.protocol.map"] + protocols,
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self.pem("broker")),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.pem("ca")),
                "listener.name.mtls.ssl.client.auth": "required",
                "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "listener.name.scram.scram-sha-512.sasl.jaas.config": f"{_MODULE}.scram.ScramLoginModule required;",
                "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
                "listener.name.plain.plain.sasl.jaas.config": (
                    f'{_MODULE}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
                ),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS;User:CN=user",
            }
            | token
        )

    def format_options(self) -> list[str]:
        """Write a user of SCRAM into the log folder."""
        return ["--add-scram", f'SCRAM-SHA-512=[name="{USER}",password="{PASSWORD}"]']

    def grant(self, topic: str, right: AclOperation) -> None:
        """Give the user a right on a topic, from any host."""
        allowed = (f"User:{USER}", "*", right, AclPermissionType.ALLOW)
        binding = AclBinding(ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, *allowed)
        admin = AdminClient({"bootstrap.servers": self.endpoint["bootstrap_servers"]})
        admin.create_acls([binding])[binding].result(10)

    def _make_certificates(self) -> None:
        """An authority signs the broker, and another authority that signs the user; a third one signs nobody."""
        new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
        authority = "-addext basicConstraints=critical,CA:TRUE"
        for name in ("ca", "other-ca"):
            self._openssl(
                f"{new} -x509 -nodes -days 30 -subj /CN={name} {authority} -keyout {name}.key -out {name}.pem"
            )
        (self.directory / "extensions").write_text(
            f"[broker]\nsubjectAltName=IP:{HOST}\n[user]\nextendedKeyUsage=clientAuth\n[between]\nbasicConstraints=critical,CA:TRUE\n"
        )
        for name, signer, more in (
            ("broker", "ca", "-nodes"),
            ("between", "ca", "-nodes"),
            ("user", "between", f"-passout pass:{KEY_PASSWORD}"),
        ):
            self._openssl(f"{new} {more} -subj /CN={name} -keyout {name}.key -out {name}.csr")
            self._openssl(
                f"x509 -req -days 30 -in {name}.csr -CA {signer}.pem -CAkey {signer}.key -CAcreateserial"
                f" -extfile extensions -extensions {name} -out {name}.crt"
            )
            above = self.pem(signer).read_text() if name == "user" else ""
            parts = [(self.directory / f"{name}.{part}").read_text() for part in ("crt", "key")]
            self.pem(name).write_text("".join([*parts[::-1], above]) if name != "between" else parts[0])

    def _openssl(self, words: str) -> None:
        command = [program("openssl", "Install OpenSSL."), *words.split()]
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True)
