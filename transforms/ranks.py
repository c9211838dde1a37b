"""How the values of a column rank.

A value present in a change ranks by the change's sequence. A value that a key change at source position S carries
over from the old row, where its rank was R, ranks `S!R`: above everything before S, below every value present at S itself.
A column that a key change left out and no change has had since is unresolved at rank `S!`. The two halves of a key change
have one source position and two places in the stream, so S is the sequence with its stream position made zero. Where the
stream alone ranks (`BY_STREAM`), all changes have one source position and the two halves are one record: S is its sequence.
"""

from __future__ import annotations

from transforms.positions.sequence import BY_STREAM, SEQUENCE_DIGITS, STREAM_DIGITS

CARRIED = "!"
_PRESENT = "~"


def rank_key(rank: str) -> str:
    """Make ranks comparable as text: a value present at S sorts above one carried over at S, also where both were carried on."""
    return rank if rank.endswith(CARRIED) else rank + _PRESENT


def unresolved_rank(rank: str) -> str:
    """The rank of an unresolved column in place of a value: just below the value's own, above all that is older."""
    return since(rank) + CARRIED


def since(rank: str) -> str:
    """The sequence from which a value is known."""
    return rank[:SEQUENCE_DIGITS]


def source_point(sequence: str) -> str:
    """The sequence at which both halves of a key change stand: its stream position made zero, unless that alone ranks."""
    return sequence if _is_by_stream(sequence) else sequence[:-STREAM_DIGITS] + "0" * STREAM_DIGITS


def latest(rank: str) -> str:
    """The newest sequence that a value belongs to: one carried over at S belongs to both halves of the key change at S."""
    first = since(rank)
    whole = len(rank) == SEQUENCE_DIGITS or _is_by_stream(first)
    return first if whole else first[:-STREAM_DIGITS] + "f" * STREAM_DIGITS


def _is_by_stream(sequence: str) -> bool:
    return sequence[4:-STREAM_DIGITS] == BY_STREAM
