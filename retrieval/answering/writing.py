"""An answer while a text model writes it: each sentence is told once it is whole, and no piece is read once nobody wants it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from generation.errors import GenerationUnavailableError

if TYPE_CHECKING:
    from generation import AnswerStream, GeneratedAnswer
    from retrieval.answering.drafts import Progress, Statement

_TRIES = 2
"""Of an answer that breaks off after it began. One that does not begin is tried again by the generator itself."""
_SILENCE_SECONDS = 0.1
"""How long a model is silent before whoever waits is asked whether they still want the answer."""


def written(
    stream: Callable[[], AnswerStream], so_far: Callable[[str], Sequence[Statement]], progress: Progress
) -> GeneratedAnswer:
    """Read an answer to its end; tell `progress` of what may be said of the text `so_far`, after each piece and in each silence.

    Where `progress` raises, the provider is not read beyond its next piece. An answer that breaks off is asked for once more,
    from its beginning, as a model does not go on in the middle.

    Raises:
        GenerationUnavailableError: no answer began in time, or two of them broke off.
        GenerationRejectedError: the model refuses the conversation.
    """
    for tries_left in reversed(range(_TRIES)):
        text, statements = "", so_far("")
        try:
            with closing(_Reading(stream())) as pieces:
                for piece in pieces:
                    if piece:
                        text += piece
                        statements = so_far(text)
                    progress(statements)
                answer = pieces.answer()
        except GenerationUnavailableError:
            if not text or not tries_left:
                raise
        else:
            return answer
    raise AssertionError


class _Reading:
    """A stream that a thread of its own reads, so that a silent model holds up nobody who wants it no more."""

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream
        self._read: queue.SimpleQueue[str | GeneratedAnswer | Exception] = queue.SimpleQueue()
        self._answer: GeneratedAnswer | None = None
        self._is_unwanted = threading.Event()
        threading.Thread(target=self._read_all, name="text model", daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        """The pieces; an empty one in each silence. Raises what the stream raises."""
        while True:
            try:
                read = self._read.get(timeout=_SILENCE_SECONDS)
            except queue.Empty:
                yield ""
                continue
            if isinstance(read, Exception):
                raise read
            if not isinstance(read, str):
                self._answer = read
                return
            yield read

    def answer(self) -> GeneratedAnswer:
        """The whole answer, once its last piece was read."""
        assert self._answer is not None  # noqa: S101 - the pieces came to their end
        return self._answer

    def close(self) -> None:
        """Let the thread close the stream at its next piece."""
        self._is_unwanted.set()

    def _read_all(self) -> None:
        try:
            with self._stream as pieces:
                for piece in pieces:
                    if self._is_unwanted.is_set():
                        return
                    self._read.put(piece)
                self._read.put(pieces.answer)
        except Exception as error:  # noqa: BLE001 - whoever reads the pieces raises it
            self._read.put(error)
