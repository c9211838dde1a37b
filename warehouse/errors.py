"""What Redshift's refusals mean: try again, read again, or mend something. Their text is left out: it may quote a row (I14)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import ConfigurationError, PipelineError, UnavailableError


class ContendedError(UnavailableError):
    """Another transaction was in the way; the same one goes through later."""


class StaleError(UnavailableError):
    """The warehouse is not as it was read any more: read it again."""


STATEMENT_TIMEOUT = "STATEMENT_TIMEOUT"
"""The condition of a statement that took too long: the warehouse answers, another statement may be in time."""


@dataclass(frozen=True)
class _Rule:
    """A refusal is known by the beginning of its SQLSTATE, or by fixed words of its message where that says nothing."""

    states: Sequence[str]
    words: str
    kind: type[PipelineError]
    message: str
    condition: str = ""
    hint: str = ""

    def fits(self, state: str, text: str) -> bool:
        """Whether the refusal is of this kind."""
        known = bool(self.states) and state.startswith(tuple(self.states))
        return known or (bool(self.words) and re.search(self.words, text, re.IGNORECASE) is not None)


_RULES = (
    _Rule(("22012",), r"divi(?:de|sion) by zero", StaleError, "another load was first"),
    # Errors 1023 and 1018: "Managing concurrent write operations". What else is named happens to two drivers that create.
    _Rule(
        ("40001", "40P01", "23505"),
        r"\b1023\b|\b1018\b|serializable isolation violation|deadlock detected|conflict with concurrent|tuple concurrently",
        ContendedError,
        "another transaction was in the way",
    ),
    _Rule(
        ("42P07", "42710"), r"relation .* already exists", ConfigurationError,
        "a table or view stands there already, and it is not this pipeline's", "TABLE_TAKEN",
        "name another schema (warehouse.schema) or another table (warehouse.names), or drop the one that is there",
    ),
    _Rule(
        ("42501",), r"permission denied|must be owner", ConfigurationError, "{where} refuses a right", "MISSING_RIGHTS",
        "grant the user CREATE and USAGE on the schema (and TEMP on the database), or make it the tables' owner",
    ),
    _Rule(
        ("28", "3D"), r"password authentication failed", ConfigurationError, "{where} refuses the login", "LOGIN_REFUSED",
        "check warehouse.database, warehouse.user and warehouse.password",
    ),
    _Rule(
        (), r"access ?denied|status 403|assume role|IAM role|not authorized", ConfigurationError,
        "Redshift cannot read the staged files", "STAGING_UNREADABLE",
        "attach warehouse.iam_role to the cluster, and allow it s3:GetObject and s3:ListBucket on warehouse.staging",
    ),
    _Rule(
        (), r"COPY from stdin failed|NoSuchKey|status 404|\bmanifest\b", UnavailableError, "staged files have gone",
        hint="they are staged again",
    ),
    _Rule(
        ("57014",), r"statement timeout|cancell?ed on user", UnavailableError, "a statement took longer than its time",
        STATEMENT_TIMEOUT,
    ),
    _Rule(("08", "57P", "53"), "", UnavailableError, "{where} does not answer"),
)  # fmt: skip
"""The first that fits counts."""
_OTHER = _Rule(
    (), "", ConfigurationError, "{where} refuses a statement", "STORE_REFUSES",
    "look the code up, or SYS_QUERY_HISTORY and SYS_LOAD_ERROR_DETAIL; a table may have been changed by hand",
)  # fmt: skip


def refusal(where: str, text: str, sqlstate: str = "") -> PipelineError:
    """The error a refusal of the warehouse is raised as; `where` names the way it was reached by."""
    state = sqlstate or _state_in(text)
    rule = next((rule for rule in _RULES if rule.fits(state, text)), _OTHER)
    message = f"warehouse: {rule.message.format(where=where)}{f' ({state})' if state else ''}"
    return rule.kind(message, condition=rule.condition, hint=rule.hint)


def _state_in(text: str) -> str:
    """The SQLSTATE that the Data API puts into its message."""
    match = re.search(r"SQLSTATE:?\s*([0-9A-Z]{5})", text)
    return match[1] if match else ""
