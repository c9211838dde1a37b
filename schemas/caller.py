"""The caller of a question: the claims that access rules compare rows with, and the user whose conversations they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from schemas.errors import ConfigurationError

type Scalar = str | int | float | bool
"""One value of a claim, as a JSON Web Token has it."""
type Claim = Scalar | tuple[Scalar, ...]
"""A claim: one value, or a list of them."""

USER = "sub"
"""The claim that names the user (RFC 7519, 4.1.2)."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. The claims are of a verified token or of the command line, and are never shown in a log line or an error.

    It is frozen: a change of the mapping it was made from changes nothing.
    """

    claims: Mapping[str, Claim] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Copy the claims; raise ConfigurationError for a claim that is neither a scalar nor a list of scalars."""
        kept = {name: _frozen(name, claim) for name, claim in self.claims.items()}
        object.__setattr__(self, "claims", MappingProxyType(kept))

    def __reduce__(self) -> tuple[type[Caller], tuple[dict[str, Claim]]]:
        """Pickle by value: a mapping proxy has no pickle of its own."""
        return Caller, (dict(self.claims),)

    def __hash__(self) -> int:
        """Equal callers have equal hashes."""
        return hash(frozenset(self.claims.items()))

    @property
    def user(self) -> str | None:
        """The user's name, the claim `sub`; None without one."""
        subject = self.claims.get(USER)
        return subject if isinstance(subject, str) and subject else None


ANYONE = Caller()
"""A caller without claims."""


def _frozen(name: str, claim: object) -> Claim:
    values = tuple(claim) if isinstance(claim, list | tuple) else (claim,)
    if not all(isinstance(value, str | int | float | bool) for value in values):
        raise ConfigurationError(
            f"claim {name!r} is neither a text, a number, a boolean nor a list of those",
            condition="CLAIM_INVALID",
            hint="leave nested objects of a token out, or name one of their members as a claim of its own",
        )
    return values if isinstance(claim, list | tuple) else values[0]
