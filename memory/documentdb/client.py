"""The DocumentDB client of a memory: one collection, its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

    from memory.documentdb.config import DocumentDBMemoryConfig

type Document = dict[str, Any]

_MISSING_RIGHTS = frozenset({13, 18, 8000})
_BUSY = frozenset({
    6, 7, 24, 46, 50, 64, 89, 91, 112, 189, 262, 9001, 10058, 10107, 11600, 11602, 13388, 13435, 13436, 14031, 16500,
})  # fmt: skip
"""MongoDB's error codes of a server that is down, shuts down, is no primary, is out of disk or time, throttles, or of a write
conflict."""


class MemoryCollection:
    """One collection, opened on first use. Reads and writes go to the primary, a majority acknowledges a write."""

    def __init__(self, config: DocumentDBMemoryConfig) -> None:
        self._config = config
        self._opened: MongoClient[Document] | None = None

    @contextmanager
    def opened(self) -> Iterator[Collection[Document]]:
        """The collection; what fails inside is raised as an error of ours without a document's content (I14).

        A duplicate key is pymongo's `DuplicateKeyError`, for the caller.
        """
        from pymongo import errors

        try:
            if self._opened is None:
                self._opened = _client(self._config)
            yield self._opened[self._config.database][self._config.collection]
        except errors.DuplicateKeyError:
            raise
        except errors.ConnectionFailure as error:  # also time-outs, TLS, and a server that is no primary
            raise UnavailableError(
                f"memory: DocumentDB does not answer ({type(error).__name__})", condition="MEMORY_UNAVAILABLE",
                hint="check memory.uri, the cluster, memory.tls_ca_file and the network route",
            ) from None  # fmt: skip
        except errors.OperationFailure as error:
            raise self._of(error.code) from None
        except errors.PyMongoError as error:
            raise ConfigurationError(
                f"memory: DocumentDB refuses a request ({type(error).__name__})", condition="MEMORY_REFUSES"
            ) from None

    def close(self) -> None:
        """Close connections; the next call opens others."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _of(self, code: int | None) -> ConfigurationError | UnavailableError:
        if code in _BUSY:
            return UnavailableError(
                f"memory: DocumentDB takes no requests now ({code})", condition="MEMORY_BUSY",
                hint="it fails over, is overloaded, full or read-only; ask again",
            )  # fmt: skip
        if code in _MISSING_RIGHTS:
            return ConfigurationError(
                f"memory: DocumentDB refuses a right ({code})", condition="MISSING_RIGHTS",
                hint=f"the user needs the role readWrite on the database {self._config.database}",
            )  # fmt: skip
        return ConfigurationError(
            f"memory: DocumentDB refuses a request ({code})", condition="MEMORY_REFUSES",
            hint="look the code up; the collection may have been changed by hand",
        )  # fmt: skip


def _client(config: DocumentDBMemoryConfig) -> MongoClient[Document]:
    """The client; it connects with its first command."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    milliseconds = round(config.timeout_seconds * 1000)
    tls: dict[str, Any] = {"tls": True, "tlsCAFile": config.tls_ca_file} if config.tls_ca_file else {}
    try:
        return MongoClient(
            config.uri.get_secret_value(), appname="ragstream", retryWrites=False, retryReads=False, w="majority",
            readPreference="primary", serverSelectionTimeoutMS=milliseconds, connectTimeoutMS=milliseconds,
            socketTimeoutMS=milliseconds, tz_aware=True, **tls,
        )  # fmt: skip
    except (PyMongoError, ValueError, OSError) as error:  # their messages may quote the password
        raise ConfigurationError(
            f"memory: the uri or tls_ca_file cannot be used ({type(error).__name__})", condition="BAD_URI",
            hint="mongodb://USER:PASSWORD@HOST:27017/?replicaSet=rs0, special characters of the password escaped",
        ) from None  # fmt: skip
