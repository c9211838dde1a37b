"""Positions of both kinds can be compared."""

from __future__ import annotations

from dataclasses import asdict

from sources.kinesis.offsets import TRIM_HORIZON, Mark
from sources.positions import as_number, earlier


def test_a_position_is_a_number_that_grows() -> None:
    unread, read = Mark(TRIM_HORIZON), Mark(TRIM_HORIZON, sequence="4951", count=2)
    assert [as_number(7), as_number(asdict(unread)), as_number(asdict(read))] == [7, 0, 4951]


def test_the_earlier_of_two_positions_leaves_nothing_out() -> None:
    assert earlier(7, 3) == earlier(3, 7) == 3
    open_mark = asdict(Mark(TRIM_HORIZON, sequence="4951", count=2))
    closed = open_mark | {"closed": True}
    assert earlier(closed, open_mark) == earlier(open_mark, closed) == open_mark
    assert earlier(closed, asdict(Mark(TRIM_HORIZON))) == asdict(Mark(TRIM_HORIZON))
