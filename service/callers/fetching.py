"""Fetches public keys over HTTP: little, soon, and from the configured address alone."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

from schemas.errors import UnavailableError

TIMEOUT_SECONDS = 5.0
MOST_BYTES = 262_144
"""Of a key set; those in use have a few thousand."""


class NotThereError(UnavailableError):
    """The server answers, and has nothing at this address."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses to go elsewhere: the configuration says whose keys are trusted."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def fetched(url: str) -> bytes:
    """The body at an address; raises UnavailableError, which names the address, for anything but a small answer of status 200."""
    request = urllib.request.Request(url, headers={"Accept": "application/json, */*", "User-Agent": "ragstream"})  # noqa: S310 - schemas.transport looked
    try:
        with _OPENER.open(request, timeout=TIMEOUT_SECONDS) as answer:
            body: bytes = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        if error.code in {403, 404}:  # S3 says 403 of what is not there
            raise NotThereError(f"{url} has no keys", condition="KEYS_UNAVAILABLE", hint="check the address") from None
        raise _away(url, f"answers with status {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _away(url, f"does not answer ({type(error).__name__})") from None
    if len(body) > MOST_BYTES:
        raise _away(url, f"answers with more than {MOST_BYTES} bytes")
    return body


def _away(url: str, what: str) -> UnavailableError:
    return UnavailableError(
        f"the keys that tokens are verified with cannot be fetched: {url} {what}",
        condition="KEYS_UNAVAILABLE",
        hint="tokens whose key was fetched before are still accepted; check the address and the network",
    )
