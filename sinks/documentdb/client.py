"""The DocumentDB client: commands, queries and bulk writes, their errors as ours, the result of every item read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Any

from schemas import documentdb
from schemas.errors import ConfigurationError, DocumentRefusedError, PipelineError, UnavailableError

if TYPE_CHECKING:
    from pymongo import InsertOne, MongoClient, UpdateOne
    from pymongo.collection import Collection as Table
    from pymongo.database import Database

    from sinks.documentdb.config import DocumentDBConfig

type Document = dict[str, Any]

MOST_NAMES = 1000
"""Names in one `$in`."""
DUPLICATE = 11000


_LOOK_UP = "look the code up; the store may have been changed by hand, or is no cluster of version 5.0 or later"


@dataclass(frozen=True, slots=True)
class BulkResult:
    """The result of a bulk of writes."""

    matched: int
    """The number of documents that updates matched."""
    duplicates: frozenset[int]
    """Places of inserts whose document existed."""


class DocumentDBClient:
    """One connection pool a process, opened on first use. Raises errors of ours alone, without row text (I14).

    Reads and writes go to the primary, and a majority acknowledges a write: a reader sees every write that returned.
    """

    def __init__(self, config: DocumentDBConfig) -> None:
        self._config = config
        self._opened: MongoClient[Document] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without connections."""
        return self.__dict__ | {"_opened": None}

    def command(self, command: Document) -> Document:
        """Run a command of the store's database."""
        with self._translated():
            return dict(self._database().command(command))

    def find(
        self, collection: str, query: Mapping[str, Any], fields: Sequence[str], most: int = 0
    ) -> Iterator[Document]:
        """Documents with these fields, at most `most` (0: all), fetched in batches, in no order."""
        with self._translated():
            yield from self._table(collection).find(query, dict.fromkeys(fields, 1), limit=most)

    def get(self, collection: str, names: Collection[str], fields: Sequence[str]) -> dict[str, Document]:
        """The existing documents of these names."""
        return {
            document["_id"]: document
            for part in batched(names, MOST_NAMES)
            for document in self.find(collection, {"_id": {"$in": part}}, fields)
        }

    def aggregate(self, collection: str, *stages: Mapping[str, Any]) -> Iterator[Document]:
        """The documents that an aggregation pipeline returns."""
        with self._translated():
            yield from self._table(collection).aggregate(list(stages))

    def count(self, collection: str, query: Mapping[str, Any], most: int) -> int:
        """The number of matching documents, counted no further than `most`."""
        with self._translated():
            return self._table(collection).count_documents(query, limit=most)

    def size(self, collection: str) -> int:
        """The estimated number of documents in a collection."""
        with self._translated():
            return self._table(collection).estimated_document_count()

    def bulk(
        self, collection: str, operations: Sequence[InsertOne[Document] | UpdateOne], *, of_documents: bool = False
    ) -> BulkResult:
        """Send writes, in no order. An insert whose document exists is a result.

        Raises:
            PipelineError: another write failed, after all were sent; with `of_documents` it is `DocumentRefusedError` if the
                store can never take the document. The driver refuses one of more than 16 MB before anything is sent.
        """
        from pymongo.errors import BulkWriteError

        with self._translated():
            try:
                result = self._table(collection).bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                return self._partial(error.details or {}, of_documents=of_documents)
        return BulkResult(result.matched_count, frozenset())

    def upsert(self, collection: str, name: str, update: Mapping[str, Any]) -> None:
        """Update or insert a document; update it if another writer inserts it meanwhile."""
        from pymongo.errors import DuplicateKeyError

        with self._translated():
            try:
                self._table(collection).update_one({"_id": name}, update, upsert=True)
            except DuplicateKeyError:
                self._table(collection).update_one({"_id": name}, update)

    def update(self, collection: str, query: Mapping[str, Any], update: Mapping[str, Any]) -> None:
        """Update the matching documents."""
        with self._translated():
            self._table(collection).update_many(query, update)

    def delete(self, collection: str, query: Mapping[str, Any]) -> None:
        """Delete the documents that match at the moment of their deletion."""
        with self._translated():
            self._table(collection).delete_many(query)

    def close(self) -> None:
        """Close connections; the next call opens others."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def refusal(self, code: int | None) -> PipelineError:
        """The error for a code of DocumentDB; its messages may quote a row, and are left out."""
        where = f"sink {self._config.name}"
        if code in documentdb.BUSY:
            return UnavailableError(
                f"{where}: DocumentDB takes no requests now ({code})", condition="STORE_BUSY",
                hint="it fails over, is overloaded or read-only; the work goes on after that",
            )  # fmt: skip
        if code in documentdb.MISSING_RIGHTS:
            return ConfigurationError(
                f"{where}: DocumentDB refuses a right ({code})", condition="MISSING_RIGHTS",
                hint=f"the user needs the role readWrite on the database {self._config.database}",
            )  # fmt: skip
        return ConfigurationError(
            f"{where}: DocumentDB refuses a request ({code})", condition="STORE_REFUSES", hint=_LOOK_UP,
        )  # fmt: skip

    def _document_refused(self, code: int | None) -> DocumentRefusedError:
        """The error for a document that the store can never take."""
        where = f"sink {self._config.name}"
        if code in documentdb.TOO_LARGE:
            return DocumentRefusedError(
                f"{where}: a document is larger than DocumentDB takes ({code})", condition="DOCUMENT_TOO_LARGE",
                hint="a row's columns and its chunks together may have 16 MB",
            )  # fmt: skip
        return DocumentRefusedError(
            f"{where}: DocumentDB refuses a document ({code})", condition="STORE_REFUSES_DOCUMENT", hint=_LOOK_UP,
        )  # fmt: skip

    def _partial(self, details: Mapping[str, Any], *, of_documents: bool) -> BulkResult:
        """The result of a bulk with failed items; raise if an item failed otherwise than as a duplicate."""
        failed = details.get("writeErrors", ())
        codes = {error["code"] for error in failed}
        refused = sorted(codes - {DUPLICATE}, key=lambda code: (code in documentdb.BUSY, code))
        if refused:
            worst = next((code for code in refused if code in documentdb.BUSY | documentdb.MISSING_RIGHTS), None)
            if worst is None and of_documents:
                raise self._document_refused(refused[0])
            raise self.refusal(refused[0] if worst is None else worst)
        if concerns := details.get("writeConcernErrors"):
            raise UnavailableError(
                f"sink {self._config.name}: DocumentDB did not acknowledge a write ({concerns[0].get('code')})",
                condition="STORE_BUSY", hint="it fails over; the work goes on after that",
            )  # fmt: skip
        return BulkResult(details.get("nMatched", 0), frozenset(error["index"] for error in failed))

    def _table(self, collection: str) -> Table[Document]:
        return self._database()[collection]

    def _database(self) -> Database[Document]:
        if self._opened is None:
            self._opened = _opened(self._config)
        return self._opened[self._config.database]

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from pymongo import errors

        where = f"sink {self._config.name}"
        try:
            yield
        except errors.ConnectionFailure as error:  # also time-outs, TLS, and a server that is no primary
            raise UnavailableError(
                f"{where}: DocumentDB does not answer ({type(error).__name__})",
                hint=f"check the uri of {where}, the cluster, tls_ca_file and the network route to it",
            ) from None
        except errors.DocumentTooLarge:  # the driver decides, before anything is sent
            raise self._document_refused(min(documentdb.TOO_LARGE)) from None
        except errors.OperationFailure as error:
            as_error = self._document_refused if error.code in documentdb.TOO_LARGE else self.refusal
            raise as_error(error.code) from None


def _opened(config: DocumentDBConfig) -> MongoClient[Document]:
    """The client; it connects with its first command."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    try:
        return MongoClient(config.uri.get_secret_value(), **documentdb.client_options(config))
    except (PyMongoError, ValueError, OSError) as error:  # their messages may quote the password
        raise ConfigurationError(
            f"sink {config.name}: the uri or tls_ca_file cannot be used ({type(error).__name__})", condition="BAD_URI",
            hint=f"{documentdb.URI_HINT}; the file must be there on every worker",
        ) from None  # fmt: skip
