"""The smallest part of a failing history that still fails. Pure but for the lane that runs the parts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from converge.compare import Failure
from converge.histories import Delivery, History, in_space

MOST_PASSES = 40
type Run = Callable[[Sequence[History]], list[Failure]]


def shrunk(failure: Failure, run: Run, spaces: Iterator[int], shared: frozenset[int] = frozenset()) -> Failure:
    """Take parts of a history away while what is left still fails; `shared` are the TRUNCATEs of its table, which stay.

    All parts of a pass run together, each in a key space of its own, so that a pass costs a store no more than one history.
    One that does not fail by itself is returned as it was found, and says so; where no part fails any more, the smallest one
    so far is returned.
    """
    again = run([in_space(failure.history, next(spaces))])
    if not again:
        return replace(failure, alone=False)
    smallest = again[0]
    for _ in range(MOST_PASSES):
        parts = [in_space(part, next(spaces)) for part in _parts(smallest.history, shared)]
        failing = run(parts) if parts else []
        if not failing:
            break
        smallest = min(failing, key=lambda failure: size(failure.history))
    return smallest


def size(history: History) -> tuple[int, ...]:
    """How large a history is: deliveries, kills, then what makes one odd."""
    deliveries = history.deliveries
    odd = sum(d.late for d in deliveries) + sum(d.reader for d in deliveries)
    return (len(deliveries), len(history.kills), odd, len({d.round for d in deliveries}), _disorder(deliveries))


def _disorder(deliveries: Sequence[Delivery]) -> int:
    numbers = [d.event for d in deliveries]
    return sum(a > b for a, b in itertools.pairwise(numbers))


def _parts(history: History, shared: frozenset[int]) -> Iterator[History]:
    """Every history that is a step smaller."""
    return (part for part in _smaller(history) if shared <= {d.event for d in part.deliveries})


def _smaller(history: History) -> Iterator[History]:
    deliveries = history.deliveries
    for length in sorted({max(1, len(deliveries) // share) for share in (2, 4, 8)} | {1}, reverse=True):
        for at in range(0, len(deliveries), length):
            left = deliveries[:at] + deliveries[at + length :]
            if left:
                yield replace(history, deliveries=left)
    for kill in history.kills:
        yield replace(history, kills=tuple(k for k in history.kills if k is not kill))
    for place, one in enumerate(deliveries):
        for simpler in (replace(one, late=False), replace(one, reader=0), replace(one, round=0)):
            if simpler != one:
                yield _with(history, place, simpler)
        if place and one.round > deliveries[place - 1].round:
            yield _with(history, place, replace(one, round=deliveries[place - 1].round))
        if place and deliveries[place - 1].event > one.event:
            swapped = (*deliveries[: place - 1], _at(one, deliveries[place - 1]), _at(deliveries[place - 1], one))
            yield replace(history, deliveries=swapped + deliveries[place + 1 :])


def _at(event: Delivery, place: Delivery) -> Delivery:
    return replace(place, event=event.event)


def _with(history: History, place: int, delivery: Delivery) -> History:
    return replace(history, deliveries=(*history.deliveries[:place], delivery, *history.deliveries[place + 1 :]))
