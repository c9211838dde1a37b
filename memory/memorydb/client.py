"""The MemoryDB client: a cluster of Valkey, its errors as ours."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from schemas.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from valkey.cluster import ValkeyCluster

    from memory.memorydb.config import MemoryDBConfig

_PORT = 6379
_RIGHTS = ("NOPERM", "WRONGPASS", "NOAUTH", "ACL")
"""The first word of an error of a user or right; `ACL failure in script` of a command within one."""
_BUSY = ("LOADING", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MASTERDOWN", "READONLY", "NOREPLICAS", "OOM")
"""The first word of an error of a server that starts, fails over, runs a script too long, or is out of memory (Valkey,
"Errors")."""
_BUSY_ERRORS = frozenset({"ReadOnlyError", "OutOfMemoryError"})
COMMANDS = (
    "~{}:* +cluster|slots +command +info +get +set +mget +hget +hmget +hset +hgetall +hdel +del +unlink +exists +expireat "
    "+pttl +eval"
)
"""The access string of a user of a prefix, all of it needed."""


class Cluster:
    """One cluster, opened on first use. Commands go to primaries: a reader sees every write that returned."""

    def __init__(self, config: MemoryDBConfig) -> None:
        self._config = config
        self._opened: ValkeyCluster | None = None
        self._nodes: list[tuple[str, int]] = []
        self._opening = threading.Lock()

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The client; what fails inside is raised as an error of ours without a value (I14)."""
        from valkey import exceptions

        try:
            with self._opening:
                if self._opened is None:
                    self._opened = _client(self._config, self._nodes)
                client = self._opened
            yield client
        except (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError) as error:
            raise self._missing_rights(type(error).__name__) from None
        except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
            raise self._silent(error) from None
        except exceptions.ClusterError as error:  # it fails over or moves slots for longer than redirects are followed
            raise _busy(type(error).__name__) from None
        except exceptions.ResponseError as error:
            raise self._of(str(error).partition(" ")[0], type(error).__name__) from None
        except exceptions.ValkeyClusterException as error:
            self._forget_client()
            raise self._silent(error) from None
        except exceptions.ValkeyError as error:
            raise self._of("", type(error).__name__) from None

    def close(self) -> None:
        """Close connections; the next call opens others."""
        if self._opened is not None:
            self._opened.close()  # type: ignore[no-untyped-call]
            self._opened = None

    def _forget_client(self) -> None:
        """Have the next call open another client: from the endpoint, or a node that this one knew where that is down."""
        client, self._opened = self._opened, None
        if client is not None:
            known: Any = client.get_nodes()  # type: ignore[no-untyped-call]
            self._nodes = [(node.host, node.port) for node in known]

    def _of(self, code: str, name: str) -> ConfigurationError | UnavailableError:
        said = code if code.isalpha() and code.isupper() else name
        if code in _BUSY or name in _BUSY_ERRORS:
            return _busy(said)
        if code in _RIGHTS:
            return self._missing_rights(said)
        return ConfigurationError(
            f"memory: MemoryDB refuses a request ({said})", condition="MEMORY_REFUSES",
            hint="keys of this prefix may have been changed by hand; memory.prefix names others",
        )  # fmt: skip

    def _missing_rights(self, said: str) -> ConfigurationError:
        return ConfigurationError(
            f"memory: MemoryDB refuses the user or a right ({said})", condition="MISSING_RIGHTS",
            hint=f"check user and password in memory.url; the user's access string needs {COMMANDS.format(self._config.prefix)}",
        )  # fmt: skip

    def _silent(self, error: Exception) -> ConfigurationError | UnavailableError:
        from valkey import exceptions

        # The client looks for another node then.
        refusals = (exceptions.AuthenticationError, exceptions.NoPermissionError)
        if any(isinstance(cause, refusals) for cause in _causes(error)):
            return self._missing_rights("no node lets it in")
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
            return ConfigurationError(
                "memory: the certificate of MemoryDB is not trusted, or has another name", condition="MEMORY_TLS",
                hint="set memory.tls_ca_file to the authorities of its certificate, and name the cluster as it does",
            )  # fmt: skip
        return _unavailable(error)


def _busy(said: str) -> UnavailableError:
    return UnavailableError(
        f"memory: MemoryDB takes no requests now ({said})", condition="MEMORY_BUSY",
        hint="it starts, fails over, or is out of memory; ask again, or give the cluster more memory",
    )  # fmt: skip


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unavailable(error: Exception) -> UnavailableError:
    return UnavailableError(
        f"memory: MemoryDB does not answer ({type(error).__name__})", condition="MEMORY_UNAVAILABLE",
        hint="check memory.url, the cluster, its TLS and the network route; a server without cluster mode is no MemoryDB",
    )  # fmt: skip


def _client(config: MemoryDBConfig, known: Iterable[tuple[str, int]]) -> ValkeyCluster:
    from valkey.backoff import ExponentialBackoff
    from valkey.cluster import ClusterNode, ValkeyCluster
    from valkey.connection import SSLConnection
    from valkey.retry import Retry

    class Verified(SSLConnection):
        """The cluster's client has no option to look at a server's name, and drops one that it does not know."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(  # type: ignore[no-untyped-call]
                ssl_cert_reqs="required", ssl_check_hostname=True, **settings
            )

    parts = urlsplit(config.url.get_secret_value())
    tls: dict[str, Any] = {"connection_class": Verified} | (
        {"ssl_ca_certs": config.tls_ca_file} if config.tls_ca_file else {}
    )
    # Only with a URL does the client take a class of connections; its scheme would be one without a look at the name.
    return ValkeyCluster(
        url=f"valkey://{parts.hostname}:{parts.port or _PORT}",
        startup_nodes=[ClusterNode(host, port) for host, port in known],  # type: ignore[no-untyped-call]
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        socket_timeout=config.timeout_seconds, socket_connect_timeout=config.timeout_seconds, decode_responses=True,
        read_from_replicas=False, require_full_coverage=False, cluster_error_retry_attempts=1,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), 1), **(tls if config.encrypted else {}),
    )  # fmt: skip
