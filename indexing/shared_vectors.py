"""Embeddings that the writers of one process share: single-flight requests to the model, and a bounded memory of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from embeddings.protocol import Embedding

type Ask = Callable[[Sequence[str]], Mapping[str, Embedding]]
"""Embeds the texts of these content hashes."""
type _Key = tuple[str, str]
"""The model's fingerprint, the content hash."""

MOST_BYTES = 32 << 20
"""Of vectors and their keys; some 7,000 vectors of 1,024 dimensions."""
_ENTRY_BYTES = 500
"""What CPython takes for one entry beside the numbers: two strings, a tuple, an array's header, the entry itself."""


class SharedEmbeddings:
    """The embeddings that were used last, by model and content hash, refusals included. Any thread may call it.

    Requests are single-flight: a thread waits for a text that another one has requested, and requests it only if that fails.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Begin empty; at most so many bytes are kept."""
        self._most_bytes = most_bytes
        self._kept: OrderedDict[_Key, Embedding] = OrderedDict()
        self._requested: dict[_Key, Future[Mapping[str, Embedding]]] = {}
        """The requests that are under way."""
        self._lock = threading.Lock()
        self.bytes = 0
        """Of all that is kept."""

    def __len__(self) -> int:
        return len(self._kept)

    def known(self, model: str, names: Collection[str]) -> dict[str, Embedding]:
        """The embeddings that are kept of these."""
        with self._lock:
            return self._known(model, names)

    def get(self, model: str, names: Sequence[str], ask: Ask) -> dict[str, Embedding]:
        """The embeddings of all these; `ask` is called for those that are neither kept nor requested by another thread.

        Raises what `ask` raises.
        """
        embeddings: dict[str, Embedding] = {}
        while missing := [name for name in names if name not in embeddings]:
            request: Future[Mapping[str, Embedding]] = Future()
            with self._lock:
                embeddings |= self._known(model, missing)
                missing = [name for name in missing if name not in embeddings]
                others = {name: self._requested[model, name] for name in missing if (model, name) in self._requested}
                wanted = [name for name in missing if name not in others]
                self._requested |= {(model, name): request for name in wanted}
            if wanted:
                embeddings |= self._ask(model, wanted, ask, request)
            for name, other in others.items():
                if (embedding := other.result().get(name)) is not None:
                    embeddings[name] = embedding
        return embeddings

    def _ask(
        self, model: str, names: Sequence[str], ask: Ask, request: Future[Mapping[str, Embedding]]
    ) -> Mapping[str, Embedding]:
        """Ask for the texts of a request; whoever waits for it goes on, also after a failure."""
        embeddings: Mapping[str, Embedding] = {}
        try:
            embeddings = ask(names)
        finally:
            with self._lock:
                for name in names:
                    del self._requested[model, name]
                for name, embedding in embeddings.items():
                    self._keep((model, name), embedding)
            request.set_result(embeddings)
        return embeddings

    def _known(self, model: str, names: Collection[str]) -> dict[str, Embedding]:
        embeddings = {name: self._kept[model, name] for name in names if (model, name) in self._kept}
        for name in embeddings:
            self._kept.move_to_end((model, name))
        return embeddings

    def _keep(self, key: _Key, embedding: Embedding) -> None:
        if isinstance(embedding, np.ndarray) and embedding.base is not None:
            embedding = embedding.copy()  # a row of a larger array would keep all of that
        if (former := self._kept.pop(key, None)) is not None:
            self.bytes -= _size(former)
        self._kept[key] = embedding
        self.bytes += _size(embedding)
        while self.bytes > self._most_bytes:
            self.bytes -= _size(self._kept.popitem(last=False)[1])


def _size(embedding: Embedding) -> int:
    return _ENTRY_BYTES + (embedding.nbytes if isinstance(embedding, np.ndarray) else 0)
