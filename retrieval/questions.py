"""Files of questions, one JSON object a line."""

from __future__ import annotations

from pathlib import Path

from schemas.errors import ConfigurationError


def lines_of(path: str, what: str, condition: str) -> list[tuple[str, str]]:
    """The non-empty lines of a file, as (location, line); `what` names the content in errors.

    Raises:
        ConfigurationError: with that condition, if the file cannot be read.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: the {what} cannot be read ({type(error).__name__})", condition=condition
        ) from None
    return [(f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
