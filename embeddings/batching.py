"""Packing of texts into as few requests as a provider's limits allow. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def pack(texts: Iterable[str], *, max_items: int, max_bytes: int) -> Iterator[tuple[str, ...]]:
    """Yield the distinct texts in order of first sight, in requests of at most `max_items` texts and `max_bytes` UTF-8 bytes.

    Every request but the last is full by one limit or the other. A text longer than `max_bytes` has its own request: the
    provider decides.
    """
    request: list[str] = []
    size = 0
    for text in dict.fromkeys(texts):
        length = len(text.encode("utf-8", "surrogatepass"))
        if request and (len(request) == max_items or size + length > max_bytes):
            yield tuple(request)
            request, size = [], 0
        request.append(text)
        size += length
    if request:
        yield tuple(request)
