"""The OpenSearch client: requests, their errors as ours, and `_bulk` with the result of every item read."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import batched
from typing import TYPE_CHECKING, Any

import orjson

from schemas.errors import ConfigurationError, DocumentRefusedError, PipelineError, UnavailableError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from sinks.opensearch.config import OpenSearchConfig

MOST_BYTES = 5 * 1024 * 1024
"""Of one `_bulk` request, unless one item alone is larger (OpenSearch's guidance is 5 to 15 MB)."""
MOST_ITEMS = 1000
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between retries of items that a busy store rejected; after the last one the caller retries the whole work."""
BUSY = frozenset({429, 502, 503, 504})
_OF_A_DOCUMENT = frozenset({400, 413})
"""Statuses that concern one item, or the size of a request."""
MOST_CONTENT = 100 * 1024 * 1024
"""Bytes of a request that no domain accepts (AWS: 10 or 100 MiB by instance type; OpenSearch's default: 100 MB). A larger one is
not sent: a server that closes the connection meanwhile looks like one that is down."""
AWAY = frozenset({
    "no_shard_available_action_exception", "shard_not_found_exception", "unavailable_shards_exception",
    "illegal_index_shard_state_exception", "index_shard_not_started_exception", "index_shard_recovering_exception",
    "index_shard_closed_exception", "node_not_connected_exception", "node_disconnected_exception", "cluster_block_exception",
})  # fmt: skip
"""Error types of a cluster that starts, moves shards, or is read-only; in an item they have no status, or 404."""


@dataclass(frozen=True, slots=True)
class Action:
    """One item of a `_bulk` request."""

    operation: str
    target: Mapping[str, Any]
    """`_index`, `_id` and conditions on the sequence number."""
    body: Mapping[str, Any] | None = None

    def lines(self) -> bytes:
        """The item as NDJSON."""
        lines = orjson.dumps({self.operation: self.target}) + b"\n"
        return lines if self.body is None else lines + orjson.dumps(self.body, option=_NUMPY) + b"\n"


_NUMPY = orjson.OPT_SERIALIZE_NUMPY


def unchanged(document: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions of an `Action` on a document that was not written since it was read."""
    return {"if_seq_no": document["_seq_no"], "if_primary_term": document["_primary_term"]}


class OpenSearchClient:
    """One connection pool a process, opened on first use. Raises errors of ours alone, without row text (I14)."""

    def __init__(self, config: OpenSearchConfig) -> None:
        """Connects on first use."""
        self._config = config
        self._opened: OpenSearch | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without connections."""
        return self.__dict__ | {"_opened": None}

    def call(self, method: str, path: str, body: Any = None, *, accept: Collection[str] = (), **params: Any) -> Any:
        """Send one request; None if it fails with an error type in `accept`."""
        with self._translated(accept):
            return self._request(method, path, params=params or None, body=body)

    def multi_search(self, index: str, bodies: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Run several searches in one request; their responses, in order."""
        lines = b"".join(b"{}\n" + orjson.dumps(body) + b"\n" for body in bodies)
        with self._translated():
            body = self._request("POST", f"/{index}/_msearch", body=lines, headers={"content-type": _NDJSON})
        for response in body["responses"]:
            if "error" in response:
                raise self.refusal(response["status"], response["error"]["type"])
        return list(body["responses"])

    def get(self, index: str, names: Sequence[str], fields: Sequence[str] = ()) -> dict[str, Mapping[str, Any]]:
        """The existing documents of these ids, as written, whether searchable yet or not."""
        existing: dict[str, Mapping[str, Any]] = {}
        for part in batched(names, MOST_ITEMS):
            params = {"_source_includes": ",".join(fields)} if fields else {}
            for document in self.call("POST", f"/{index}/_mget", {"ids": part}, **params)["docs"]:
                if "error" in document:
                    raise self.refusal(404, document["error"]["type"])
                if document["found"]:
                    existing[document["_id"]] = document
        return existing

    def pages(
        self, index: str, query: Mapping[str, Any], order: Sequence[str], fields: Sequence[str], size: int | None = None
    ) -> Iterator[list[Mapping[str, Any]]]:
        """The hits of a query sorted by the fields of `order`, a page at a time; each page is of the time it is read."""
        body = {
            "size": size or MOST_ITEMS, "query": query, "sort": list(order), "_source": list(fields), "seq_no_primary_term": True,
        }  # fmt: skip
        while hits := self.call("POST", f"/{index}/_search", body)["hits"]["hits"]:
            yield hits
            body["search_after"] = hits[-1]["sort"]

    def bulk(
        self, actions: Sequence[Action], *, refresh: bool = False, of_documents: bool = False
    ) -> list[Mapping[str, Any]]:
        """Send actions, in slices; the result of each, in order. A version conflict is a result (status 409).

        Items that a busy store rejects are sent again, with growing pauses.

        Raises:
            PipelineError: another item failed, after all were sent; with `of_documents` it is `DocumentRefusedError` if the
                store can never take the item.
        """
        results: list[Mapping[str, Any]] = []
        slices = list(_slices(actions))
        for lines in slices:
            results += self._retrying(lines, refresh=refresh and len(slices) == 1)
        failed = [result for result in results if "error" in result and result["status"] != HTTPStatus.CONFLICT]
        if failed:
            worst = min(failed, key=lambda result: result["status"] in _OF_A_DOCUMENT)
            error = self._document_refused if of_documents else self.refusal
            raise error(worst["status"], worst["error"].get("type", ""))
        if refresh and len(slices) > 1:
            indexes = ",".join(sorted({str(action.target["_index"]) for action in actions}))
            self.call("POST", f"/{indexes}/_refresh")
        return results

    def close(self) -> None:
        """Close connections; the next call opens others."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def refusal(self, status: int, kind: str) -> PipelineError:
        """The error for a response, from its status and error type; its reason may quote a row, and is left out."""
        where, detail = f"sink {self._config.name}", f"({status} {kind})".replace(" )", ")")
        if kind in AWAY or status in BUSY or "circuit_breaking" in kind:
            return UnavailableError(
                f"{where}: OpenSearch takes no requests now {detail}", condition="STORE_BUSY",
                hint="it is overloaded, its disks are full, or its indexes were made read-only; the work goes on after that",
            )  # fmt: skip
        if status in {401, 403}:
            return ConfigurationError(
                f"{where}: OpenSearch refuses a right {detail}", condition="MISSING_RIGHTS",
                hint=f"the user needs to create, read and write indexes named {self._config.index}*, and templates of indexes",
            )  # fmt: skip
        if kind == "index_not_found_exception":
            return ConfigurationError(
                f"{where}: the store {self._config.index} lacks an index {detail}", condition="STORE_EMPTY",
                hint="run `ragstream run` or `ragstream rebuild` to create it",
            )  # fmt: skip
        return ConfigurationError(
            f"{where}: OpenSearch refuses a request {detail}", condition="STORE_REFUSES",
            hint="the store's indexes may have been changed by hand, or the server lacks the k-NN plugin",
        )  # fmt: skip

    def _document_refused(self, status: int, kind: str) -> PipelineError:
        """The error for an item of documents."""
        where, detail = f"sink {self._config.name}", f"({status} {kind})".replace(" )", ")")
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return DocumentRefusedError(
                f"{where}: a document is larger than OpenSearch takes {detail}", condition="DOCUMENT_TOO_LARGE",
                hint="raise http.max_content_length, or use fewer chunks a document",
            )  # fmt: skip
        if status == HTTPStatus.BAD_REQUEST:
            return DocumentRefusedError(
                f"{where}: OpenSearch refuses a document {detail}", condition="STORE_REFUSES_DOCUMENT",
                hint="a value of it does not fit the index, whose mapping may have been changed by hand",
            )  # fmt: skip
        return self.refusal(status, kind)

    def _request(self, method: str, path: str, **options: Any) -> Any:
        """Send one request, again with growing pauses while the store is too busy for it (429)."""
        from opensearchpy.exceptions import TransportError

        for pause in PAUSES:
            try:
                return self._client().transport.perform_request(method, path, **options)
            except TransportError as error:
                if error.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                    raise
            time.sleep(pause)
        return self._client().transport.perform_request(method, path, **options)

    def _retrying(self, lines: Sequence[bytes], *, refresh: bool) -> list[Mapping[str, Any]]:
        """Send one slice until no item is rejected as busy; raise UnavailableError after `PAUSES`."""
        results: dict[int, Mapping[str, Any]] = {}
        left = list(range(len(lines)))
        for pause in (*PAUSES, None):
            results |= zip(left, self._send([lines[n] for n in left], refresh=refresh), strict=True)
            left = [n for n in left if results[n]["status"] in BUSY]
            if not left:
                break
            if pause is None:
                rejected = results[left[0]]
                raise self.refusal(rejected["status"], rejected.get("error", {}).get("type", ""))
            time.sleep(pause)
        return [results[n] for n in range(len(lines))]

    def _send(self, lines: Sequence[bytes], *, refresh: bool) -> list[Mapping[str, Any]]:
        """Send one `_bulk`; if the whole request is rejected, every item has that result."""
        from opensearchpy.exceptions import TransportError

        if sum(map(len, lines)) > MOST_CONTENT:
            return [{"status": int(HTTPStatus.REQUEST_ENTITY_TOO_LARGE), "error": {"type": ""}}] * len(lines)
        params = {"refresh": "true"} if refresh else None
        with self._translated():
            try:
                body = self._client().transport.perform_request(
                    "POST", "/_bulk", params=params, body=b"".join(lines), headers={"content-type": _NDJSON}
                )
            except TransportError as error:
                if error.status_code not in BUSY | _OF_A_DOCUMENT:
                    raise
                return [{"status": error.status_code, "error": {"type": _kind(error.error)}}] * len(lines)
        return [next(iter(item.values())) for item in body["items"]]

    def _client(self) -> OpenSearch:
        if self._opened is None:
            from opensearchpy import OpenSearch

            config = self._config
            self._opened = OpenSearch(
                config.url, timeout=config.timeout_seconds, http_auth=_credentials(config), ca_certs=config.ca_bundle,
                max_retries=1, retry_on_timeout=False, retry_on_status=(),
            )  # fmt: skip
        return self._opened

    @contextmanager
    def _translated(self, accept: Collection[str] = ()) -> Iterator[None]:
        from opensearchpy import exceptions

        try:
            yield
        except exceptions.ConnectionError as error:  # also time-outs, and TLS
            where = f"sink {self._config.name}"
            kind = ConfigurationError if isinstance(error, exceptions.SSLError) else UnavailableError
            raise kind(
                f"{where}: OpenSearch does not answer ({type(error).__name__})",
                hint=f"check the url of {where}, the server, its certificate and the network route to it",
            ) from None
        except exceptions.TransportError as error:
            if _kind(error.error) not in accept:
                raise self.refusal(int(error.status_code), _kind(error.error)) from None


_NDJSON = "application/x-ndjson"


def _kind(error_type: object) -> str:
    """An error type; anything else may be any text, and is left out."""
    return error_type if isinstance(error_type, str) and re.fullmatch(r"[a-z_]+", error_type) else ""


def _slices(actions: Sequence[Action]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for action in actions:
        lines = action.lines()
        if part and (size + len(lines) > MOST_BYTES or len(part) == MOST_ITEMS):
            yield part
            part, size = [], 0
        part.append(lines)
        size += len(lines)
    if part:
        yield part


def _credentials(config: OpenSearchConfig) -> Any:
    """User and password, or a signer for AWS.

    The urllib3 signer alone: with opensearch-py 3.2.0 the one for requests signs headers that Serverless then refuses (403).
    """
    if config.signing is not None:
        import boto3
        from opensearchpy import Urllib3AWSV4SignerAuth

        credentials = boto3.Session().get_credentials()
        if credentials is None:
            raise ConfigurationError(
                f"sink {config.name}: there are no AWS credentials to sign with",
                condition="NO_CREDENTIALS",
                hint="give the job a role, or the shell a profile",
            )
        return Urllib3AWSV4SignerAuth(credentials, config.signing.region, config.signing.service)
    return (config.user, config.password.get_secret_value()) if config.user and config.password else None
