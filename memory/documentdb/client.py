"""The DocumentDB client of a memory: one collection, its errors as ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from schemas import documentdb
from schemas.errors import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

    from memory.documentdb.config import DocumentDBMemoryConfig

type Document = dict[str, Any]


class MemoryCollection:
    """One collection, opened on first use. Reads and writes go to the primary, a majority acknowledges a write."""

    def __init__(self, config: DocumentDBMemoryConfig) -> None:
        self._config = config
        self._opened: MongoClient[Document] | None = None
        self._opening = threading.Lock()

    @contextmanager
    def opened(self) -> Iterator[Collection[Document]]:
        """The collection; what fails inside is raised as an error of ours without a document's content (I14).

        A duplicate key is pymongo's `DuplicateKeyError`, for the caller.
        """
        from pymongo import errors

        try:
            with self._opening:
                if self._opened is None:
                    self._opened = _client(self._config)
                client = self._opened
            yield client[self._config.database][self._config.collection]
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
        if code in documentdb.BUSY:
            return UnavailableError(
                f"memory: DocumentDB takes no requests now ({code})", condition="MEMORY_BUSY",
                hint="it fails over, is overloaded, full or read-only; ask again",
            )  # fmt: skip
        if code in documentdb.MISSING_RIGHTS:
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

    try:
        return MongoClient(config.uri.get_secret_value(), tz_aware=True, **documentdb.client_options(config))
    except (PyMongoError, ValueError, OSError) as error:  # their messages may quote the password
        raise ConfigurationError(
            f"memory: the uri or tls_ca_file cannot be used ({type(error).__name__})", condition="BAD_URI",
            hint=documentdb.URI_HINT,
        ) from None  # fmt: skip
