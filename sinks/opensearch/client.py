"""Talking to OpenSearch: the client of a configuration, its errors as ours, and `_bulk` with every item read."""

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
"""Seconds between the attempts for what a busy store turned away; then the whole work is done again later."""
BUSY = frozenset({429, 502, 503, 504})
_OF_A_DOCUMENT = frozenset({400, 413})
"""Statuses that blame one item, or the size of a request."""
MOST_CONTENT = 100 * 1024 * 1024
"""Bytes of a request that no domain takes (AWS: 10 or 100 MiB by the type of instance; OpenSearch's own: 100 MB). It is not sent:
a server that closes the connection meanwhile cannot be told from one that is away."""
AWAY = frozenset({
    "no_shard_available_action_exception", "shard_not_found_exception", "unavailable_shards_exception",
    "illegal_index_shard_state_exception", "index_shard_not_started_exception", "index_shard_recovering_exception",
    "index_shard_closed_exception", "node_not_connected_exception", "node_disconnected_exception", "cluster_block_exception",
})  # fmt: skip
"""Of a cluster that starts, moves shards, or takes no writes: those of an item come with no status, or with 404."""


@dataclass(frozen=True, slots=True)
class Action:
    """One item of a `_bulk` request: what to do, and the document it is done with."""

    operation: str
    target: Mapping[str, Any]
    """`_index`, `_id` and conditions."""
    body: Mapping[str, Any] | None = None

    def lines(self) -> bytes:
        """As NDJSON."""
        lines = orjson.dumps({self.operation: self.target}) + b"\n"
        return lines if self.body is None else lines + orjson.dumps(self.body, option=_NUMPY) + b"\n"


_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class OpenSearchClient:
    """One connection pool a process, opened when it is first needed. Every error is one of ours, without row text (I14)."""

    def __init__(self, config: OpenSearchConfig) -> None:
        """Keep the configuration; nothing is opened yet."""
        self._config = config
        self._opened: OpenSearch | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as configuration, without connections."""
        return self.__dict__ | {"_opened": None}

    def call(self, method: str, path: str, body: Any = None, *, accept: Collection[str] = (), **params: Any) -> Any:
        """Send one request; None where it is refused with an error of a type in `accept`."""
        with self._translated(accept):
            return self._ask(method, path, params=params or None, body=body)

    def search_each(self, index: str, bodies: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Run several searches in one request; the answer of each, in their order."""
        lines = b"".join(b"{}\n" + orjson.dumps(body) + b"\n" for body in bodies)
        with self._translated():
            told = self._ask("POST", f"/{index}/_msearch", body=lines, headers={"content-type": _NDJSON})
        for answer in told["responses"]:
            if "error" in answer:
                raise self.refusal(answer["status"], answer["error"]["type"])
        return list(told["responses"])

    def get(self, index: str, names: Sequence[str], fields: Sequence[str] = ()) -> dict[str, Mapping[str, Any]]:
        """Those of the documents that are there, as they are now, searchable or not."""
        found: dict[str, Mapping[str, Any]] = {}
        for part in batched(names, MOST_ITEMS):
            params = {"_source_includes": ",".join(fields)} if fields else {}
            told = self.call("POST", f"/{index}/_mget", {"ids": part}, **params)
            for document in told["docs"]:
                if "error" in document:
                    raise self.refusal(404, document["error"]["type"])
                if document["found"]:
                    found[document["_id"]] = document
        return found

    def pages(
        self, index: str, query: Mapping[str, Any], order: Sequence[str], fields: Sequence[str], size: int | None = None
    ) -> Iterator[list[Mapping[str, Any]]]:
        """What a query finds, in the order of its fields, a page at a time; as searchable when each page is read."""
        body = {
            "size": size or MOST_ITEMS, "query": query, "sort": list(order), "_source": list(fields), "seq_no_primary_term": True,
        }  # fmt: skip
        while hits := self.call("POST", f"/{index}/_search", body)["hits"]["hits"]:
            yield hits
            body["search_after"] = hits[-1]["sort"]

    def bulk(
        self, actions: Sequence[Action], *, refresh: bool = False, of_documents: bool = False
    ) -> list[Mapping[str, Any]]:
        """Send actions, in slices; the answer of each, in their order.

        Items that a busy store turns away are sent again, each time later. A version conflict is an answer (409); every
        other refusal is raised once all items were sent: of documents `DocumentRefusedError`, where the item alone is to blame.
        """
        answers: list[Mapping[str, Any]] = []
        slices = list(_slices(actions))
        for lines in slices:
            answers += self._all(lines, refresh=refresh and len(slices) == 1)
        refused = [answer for answer in answers if "error" in answer and answer["status"] != 409]
        if refused:
            worst = min(refused, key=lambda answer: answer["status"] in _OF_A_DOCUMENT)
            error = self._document_refused if of_documents else self.refusal
            raise error(worst["status"], worst["error"].get("type", ""))
        if refresh and len(slices) > 1:
            indexes = ",".join(sorted({str(action.target["_index"]) for action in actions}))
            self.call("POST", f"/{indexes}/_refresh")
        return answers

    def close(self) -> None:
        """Close connections; the next call opens others."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def refusal(self, status: int, kind: str) -> PipelineError:
        """The error that an answer of OpenSearch means, from its status and the type it names; reasons may quote a row."""
        where, told = f"sink {self._config.name}", f"({status} {kind})".replace(" )", ")")
        if kind in AWAY or status in BUSY or "circuit_breaking" in kind:
            return UnavailableError(
                f"{where}: OpenSearch takes no requests now {told}", condition="STORE_BUSY",
                hint="it is overloaded, its disks are full, or its indexes were made read-only; the work goes on after that",
            )  # fmt: skip
        if status in {401, 403}:
            return ConfigurationError(
                f"{where}: OpenSearch refuses a right {told}", condition="MISSING_RIGHTS",
                hint=f"the user needs to create, read and write indexes named {self._config.index}*, and templates of indexes",
            )  # fmt: skip
        if kind == "index_not_found_exception":
            return ConfigurationError(
                f"{where}: the store {self._config.index} lacks an index {told}", condition="STORE_EMPTY",
                hint="run `ragstream run` or `ragstream rebuild` to create it",
            )  # fmt: skip
        return ConfigurationError(
            f"{where}: OpenSearch refuses a request {told}", condition="STORE_REFUSES",
            hint="the store's indexes may have been changed by hand, or the server lacks the k-NN plugin",
        )  # fmt: skip

    def _document_refused(self, status: int, kind: str) -> PipelineError:
        """The error that an answer to one item means."""
        where, told = f"sink {self._config.name}", f"({status} {kind})".replace(" )", ")")
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return DocumentRefusedError(
                f"{where}: a document is larger than OpenSearch takes {told}", condition="DOCUMENT_TOO_LARGE",
                hint="raise http.max_content_length, or use fewer chunks a document",
            )  # fmt: skip
        if status == HTTPStatus.BAD_REQUEST:
            return DocumentRefusedError(
                f"{where}: OpenSearch refuses a document {told}", condition="STORE_REFUSES_DOCUMENT",
                hint="a value of it does not fit the index, whose mapping may have been changed by hand",
            )  # fmt: skip
        return self.refusal(status, kind)

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        """Send one request; again, each time later, where the store is too busy for it."""
        from opensearchpy.exceptions import TransportError

        for pause in PAUSES:
            try:
                return self._client().transport.perform_request(method, path, **options)
            except TransportError as error:
                if error.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                    raise
            time.sleep(pause)
        return self._client().transport.perform_request(method, path, **options)

    def _all(self, lines: Sequence[bytes], *, refresh: bool) -> list[Mapping[str, Any]]:
        """Send one slice until no item is turned away as busy."""
        answers: dict[int, Mapping[str, Any]] = {}
        left = list(range(len(lines)))
        for pause in (*PAUSES, None):
            answers |= zip(left, self._send([lines[n] for n in left], refresh=refresh), strict=True)
            left = [n for n in left if answers[n]["status"] in BUSY]
            if not left:
                break
            if pause is None:
                refused = answers[left[0]]
                raise self.refusal(refused["status"], refused.get("error", {}).get("type", ""))
            time.sleep(pause)
        return [answers[n] for n in range(len(lines))]

    def _send(self, lines: Sequence[bytes], *, refresh: bool) -> list[Mapping[str, Any]]:
        """Send one `_bulk`; a request that is turned away as a whole is one whose items all are."""
        from opensearchpy.exceptions import TransportError

        if sum(map(len, lines)) > MOST_CONTENT:
            return [{"status": int(HTTPStatus.REQUEST_ENTITY_TOO_LARGE), "error": {"type": ""}}] * len(lines)
        params = {"refresh": "true"} if refresh else None
        with self._translated():
            try:
                told = self._client().transport.perform_request(
                    "POST", "/_bulk", params=params, body=b"".join(lines), headers={"content-type": _NDJSON}
                )
            except TransportError as error:
                if error.status_code not in BUSY | _OF_A_DOCUMENT:
                    raise
                return [{"status": error.status_code, "error": {"type": _kind(error.error)}}] * len(lines)
        return [next(iter(item.values())) for item in told["items"]]

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
            where, told = f"sink {self._config.name}", type(error).__name__
            kind = ConfigurationError if isinstance(error, exceptions.SSLError) else UnavailableError
            raise kind(
                f"{where}: OpenSearch does not answer ({told})",
                hint=f"check the url of {where}, the server, its certificate and the network route to it",
            ) from None
        except exceptions.TransportError as error:
            if _kind(error.error) not in accept:
                raise self.refusal(int(error.status_code), _kind(error.error)) from None


_NDJSON = "application/x-ndjson"


def _kind(told: object) -> str:
    """The type of an error; what is no type may be any text, and is left out."""
    return told if isinstance(told, str) and re.fullmatch(r"[a-z_]+", told) else ""


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
