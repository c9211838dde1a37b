"""What Redshift's refusals mean: try again, read again, or mend something. Their text is left out: it may quote a row (I14)."""

from __future__ import annotations

import re

from schemas.errors import ConfigurationError, PipelineError, UnavailableError


class ContendedError(UnavailableError):
    """Another transaction was in the way; the same one goes through later."""


class StaleError(UnavailableError):
    """The warehouse is not as it was read any more: read it again."""


_STALE = re.compile(r"divi(?:de|sion) by zero", re.IGNORECASE)
_CONTENDED = re.compile(
    r"\b1023\b|\b1018\b|serializable isolation violation|could not serialize|deadlock detected|conflict with concurrent"
    r"|tuple concurrently|duplicate key value|already exists",
    re.IGNORECASE,
)
"""Errors 1023 and 1018 ("Managing concurrent write operations"), and two drivers that create the same thing."""
_RIGHTS = re.compile(r"permission denied|not authorized|must be owner", re.IGNORECASE)
_STAGING = re.compile(r"S3ServiceException|AccessDenied|assume role|IAM role|UnauthorizedException", re.IGNORECASE)
_GONE = re.compile(r"COPY from stdin failed|NoSuchKey|mandatory|manifest", re.IGNORECASE)
_CONTENDED_STATES = {"40001", "40P01", "23505", "42P07", "42710", "XX000-1023"}
_LOGIN = ("28", "3D")
_AWAY = ("08", "57P", "53")


def judged(where: str, text: str, sqlstate: str = "") -> PipelineError:
    """The error a refusal of the warehouse is raised as; `where` names the way it was reached by."""
    code = sqlstate or _sqlstate_in(text)
    named = f" ({code})" if code else ""
    if code == "22012" or _STALE.search(text):
        return StaleError("warehouse: another load was first")
    if code in _CONTENDED_STATES or _CONTENDED.search(text):
        return ContendedError(f"warehouse: another transaction was in the way{named}")
    if code == "42501" or _RIGHTS.search(text):
        return ConfigurationError(
            f"warehouse: {where} refuses a right{named}",
            condition="MISSING_RIGHTS",
            hint="grant the user CREATE and USAGE on the schema (and TEMP on the database), or make it the tables' owner",
        )
    if code.startswith(_LOGIN):
        return ConfigurationError(
            f"warehouse: {where} refuses the login{named}",
            condition="LOGIN_REFUSED",
            hint="check warehouse.database, warehouse.user and warehouse.password",
        )
    if _GONE.search(text):
        return UnavailableError(f"warehouse: staged files have gone{named}", hint="they are staged again")
    if _STAGING.search(text):
        return ConfigurationError(
            f"warehouse: Redshift cannot read the staged files{named}",
            condition="STAGING_UNREADABLE",
            hint="attach warehouse.iam_role to the cluster, and allow it s3:GetObject and s3:ListBucket on warehouse.staging",
        )
    if code.startswith(_AWAY):
        return UnavailableError(f"warehouse: {where} does not answer{named}")
    return ConfigurationError(
        f"warehouse: {where} refuses a statement{named}",
        condition="STORE_REFUSES",
        hint="look the code up, or SYS_QUERY_HISTORY and SYS_LOAD_ERROR_DETAIL; a table may have been changed by hand",
    )


def _sqlstate_in(text: str) -> str:
    found = re.search(r"SQLSTATE:?\s*([0-9A-Z]{5})", text)
    return found[1] if found else ""
