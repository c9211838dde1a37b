"""What every text model's configuration says of its answers."""

from __future__ import annotations

from typing import Literal

from schemas.model import StrictModel

type Unsupported = Literal["drop", "mark", "keep"]


class AnswerRules(StrictModel):
    """The rules for what a text model says."""

    unsupported: Unsupported = "drop"
    """What happens to a sentence with a number or a name that the rows it cites do not hold: it is left out, marked
    `[unsupported]`, or kept. A sentence without a citation is always left out."""
