"""The release that runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The version of the installed package; "0" where it is not installed."""
    try:
        return version("ragstream")
    except PackageNotFoundError:
        return "0"
