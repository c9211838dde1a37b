"""What every client of DocumentDB needs to know: MongoDB's error codes, and the driver's options. It imports no driver."""

from __future__ import annotations

from typing import Any, Protocol

MISSING_RIGHTS = frozenset({13, 18, 8000})
"""Error codes of a user that is not known or lacks a right."""
TOO_LARGE = frozenset({10334, 17419, 17420})
"""Of a document that is larger than 16 MB."""
BUSY = frozenset({
    6, 7, 24, 46, 50, 64, 89, 91, 112, 189, 262, 9001, 10058, 10107, 11600, 11602, 13388, 13435, 13436, 14031, 16500,
})  # fmt: skip
"""Of a server that is down, shuts down, is no primary, is out of disk or time, throttles, or of a write conflict."""
URI_HINT = "mongodb://USER:PASSWORD@HOST:27017/?replicaSet=rs0, special characters of the password escaped"


class ClusterSettings(Protocol):
    """The keys of a section that names a cluster."""

    @property
    def tls_ca_file(self) -> str | None:
        """File of the certificate authorities to trust."""

    @property
    def timeout_seconds(self) -> float:
        """Of one request."""


def client_options(config: ClusterSettings) -> dict[str, Any]:
    """Options of pymongo's client: nothing is tried again by the driver, the primary answers, a majority acknowledges."""
    milliseconds = round(config.timeout_seconds * 1000)
    tls = {"tls": True, "tlsCAFile": config.tls_ca_file} if config.tls_ca_file else {}
    return {
        "appname": "ragstream", "retryWrites": False, "retryReads": False, "w": "majority", "readPreference": "primary",
        "serverSelectionTimeoutMS": milliseconds, "connectTimeoutMS": milliseconds, "socketTimeoutMS": milliseconds, **tls,
    }  # fmt: skip
