"""A model's answers that the stores of one process share: each text is asked once, and what is remembered is bounded."""

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
"""Asks the model for the texts of some content hashes."""
type _Key = tuple[str, str]
"""The model's fingerprint, the content hash."""

MOST_BYTES = 32 << 20
"""Of vectors and their keys; some 7,000 vectors of 1,024 dimensions."""
_ENTRY_BYTES = 500
"""What CPython takes for one entry beside the numbers: two strings, a tuple, an array's header, the entry itself."""


class Answers:
    """The answers that were used last, by model and content hash, refusals included. Any thread may call it.

    A text that one thread is asking for is not asked by another: that one waits, and asks itself only if the first failed.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Remember nothing yet, and at most so many bytes."""
        self._most_bytes = most_bytes
        self._kept: OrderedDict[_Key, Embedding] = OrderedDict()
        self._asked: dict[_Key, Future[Mapping[str, Embedding]]] = {}
        """What some thread is asking now."""
        self._lock = threading.Lock()
        self.bytes = 0
        """Of all that is remembered."""

    def __len__(self) -> int:
        return len(self._kept)

    def known(self, model: str, names: Collection[str]) -> dict[str, Embedding]:
        """Those of the answers that are remembered."""
        with self._lock:
            return self._known(model, names)

    def once(self, model: str, names: Sequence[str], ask: Ask) -> dict[str, Embedding]:
        """The answers for all these content hashes; `ask` is called for those that nobody asks and nobody remembers.

        Raises what `ask` raises.
        """
        answers: dict[str, Embedding] = {}
        while lacking := [name for name in names if name not in answers]:
            mine: Future[Mapping[str, Embedding]] = Future()
            with self._lock:
                answers |= self._known(model, lacking)
                lacking = [name for name in lacking if name not in answers]
                others = {name: self._asked[model, name] for name in lacking if (model, name) in self._asked}
                wanted = [name for name in lacking if name not in others]
                self._asked |= {(model, name): mine for name in wanted}
            if wanted:
                answers |= self._ask(model, wanted, ask, mine)
            for name, asked in others.items():
                told = asked.result()
                answers |= {name: told[name]} if name in told else {}
        return answers

    def _ask(
        self, model: str, names: Sequence[str], ask: Ask, future: Future[Mapping[str, Embedding]]
    ) -> Mapping[str, Embedding]:
        """Ask for texts that this thread took upon itself; whoever waits for them goes on, also after a failure."""
        told: Mapping[str, Embedding] = {}
        try:
            told = ask(names)
        finally:
            with self._lock:
                for name in names:
                    del self._asked[model, name]
                for name, answer in told.items():
                    self._keep((model, name), answer)
            future.set_result(told)
        return told

    def _known(self, model: str, names: Collection[str]) -> dict[str, Embedding]:
        found = {name: self._kept[model, name] for name in names if (model, name) in self._kept}
        for name in found:
            self._kept.move_to_end((model, name))
        return found

    def _keep(self, key: _Key, answer: Embedding) -> None:
        if isinstance(answer, np.ndarray) and answer.base is not None:
            answer = answer.copy()  # a row of a larger array would keep all of that
        if (former := self._kept.pop(key, None)) is not None:
            self.bytes -= _size(former)
        self._kept[key] = answer
        self.bytes += _size(answer)
        while self.bytes > self._most_bytes:
            self.bytes -= _size(self._kept.popitem(last=False)[1])


def _size(answer: Embedding) -> int:
    return _ENTRY_BYTES + (answer.nbytes if isinstance(answer, np.ndarray) else 0)
