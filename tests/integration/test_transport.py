"""A PostgreSQL behind TLS is written to where its certificate has its name, and nowhere else."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr

from local_stack.certificates import self_signed
from local_stack.servers.postgres import VectorStore
from schemas.errors import ConfigurationError
from sinks.pgvector.config import PgvectorConfig
from sinks.pgvector.writer import PgvectorSink
from tests.feeding import DIMENSIONS
from warehouse.clients import WireClient
from warehouse.config import RedshiftConfig

NAME = "vectors.example"
_REQUEST_BYTES = 8
"""SSLRequest of PostgreSQL's protocol, which is answered by one byte."""


@contextmanager
def behind_tls(port: int, pem: Path | None) -> Iterator[int]:
    """Stand before a server as one that has TLS, or as one that has none; gives the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if pem is not None:
        context.load_cert_chain(pem)

    def serve(client: socket.socket) -> None:
        with suppress(OSError), closing(client):
            client.recv(_REQUEST_BYTES)
            client.sendall(b"N" if pem is None else b"S")
            if pem is None:
                return
            with (
                context.wrap_socket(client, server_side=True) as inside,
                socket.create_connection(("127.0.0.1", port)) as server,
            ):
                threading.Thread(target=copy, args=(server, inside), daemon=True).start()
                copy(inside, server)

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def copy(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)


@pytest.mark.filterwarnings("ignore:ssl.*deprecated:DeprecationWarning")  # redshift_connector makes its context so
@pytest.mark.parametrize("server", ["another.example", None])
def test_a_warehouse_with_another_name_or_without_tls_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str | None
) -> None:
    """The authority is one that is trusted: it is the name that is wrong."""
    pem = self_signed(tmp_path, server) if server else None
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / f"{server}.crt"))
    with behind_tls(0, pem) as port:  # nobody gets through it
        login = {"type": "redshift", "host": "127.0.0.1", "port": port, "database": "d", "user": "u", "password": "p"}
        client = WireClient(RedshiftConfig.model_validate(login | {"staging": "s3://bucket/staged"}))
        with pytest.raises(ConfigurationError) as raised:
            client.run(["SELECT 1"])
    assert raised.value.condition == "SERVER_UNVERIFIED"


@pytest.mark.parametrize("server", [NAME, "another.example", None])
def test_a_server_with_another_name_or_without_tls_is_refused(
    tmp_path: Path, vectors: VectorStore, vectors_dsn: str, server: str | None
) -> None:
    pem = self_signed(tmp_path, server) if server else None
    authority = str(tmp_path / f"{server}.crt") if server else "system"
    with behind_tls(vectors.port, pem) as port:
        dsn = make_conninfo(vectors_dsn, host=NAME, hostaddr="127.0.0.1", port=port, sslrootcert=authority)
        config = PgvectorConfig(type="pgvector", dsn=SecretStr(dsn), table="kb")
        with closing(PgvectorSink(config, "model=test", DIMENSIONS)) as sink:
            if server == NAME:
                sink.prepare()
                sink.check()
                return
            with pytest.raises(ConfigurationError) as raised:
                sink.check()
    assert (raised.value.condition, raised.value.exit_status) == ("SERVER_UNVERIFIED", 2)
