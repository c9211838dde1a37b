"""Reads an answer while a text model writes it: each whole sentence is reported, and a cancelled answer is read no further."""

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
"""How long a model may be silent before `progress` is called again, which raises where the question was cancelled."""


def written(
    stream: Callable[[], AnswerStream], statements_of: Callable[[str], Sequence[Statement]], progress: Progress
) -> GeneratedAnswer:
    """Read an answer to its end; call `progress` with the statements of its text so far, after each piece and in each silence.

    Where `progress` raises, the provider is not read beyond its next piece. An answer that breaks off is asked for once more,
    from its beginning, as a model does not go on in the middle.

    Raises:
        GenerationUnavailableError: no answer began in time, or two of them broke off.
        GenerationRejectedError: the model refuses the conversation.
    """
    for tries_left in reversed(range(_TRIES)):
        text, statements = "", statements_of("")
        try:
            with closing(_Reading(stream())) as pieces:
                for piece in pieces:
                    if piece:
                        text += piece
                        statements = statements_of(text)
                    progress(statements)
                answer = pieces.answer()
        except GenerationUnavailableError:
            if not text or not tries_left:
                raise
        else:
            return answer
    raise AssertionError


class _Reading:
    """A stream that a thread of its own reads, so that a question can be cancelled while the model is silent."""

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = stream
        self._pieces: queue.SimpleQueue[str | GeneratedAnswer | Exception] = queue.SimpleQueue()
        self._answer: GeneratedAnswer | None = None
        self._is_closed = threading.Event()
        threading.Thread(target=self._read_all, name="text model", daemon=True).start()

    def __iter__(self) -> Iterator[str]:
        """The pieces; an empty one in each silence. Raises what the stream raises."""
        while True:
            try:
                read = self._pieces.get(timeout=_SILENCE_SECONDS)
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
        self._is_closed.set()

    def _read_all(self) -> None:
        try:
            with self._stream as pieces:
                for piece in pieces:
                    if self._is_closed.is_set():
                        return
                    self._pieces.put(piece)
                self._pieces.put(pieces.answer)
        except Exception as error:  # noqa: BLE001 - whoever reads the pieces raises it
            self._pieces.put(error)
