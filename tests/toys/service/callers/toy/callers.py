"""Knows callers by a word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from schemas.caller import Caller
from schemas.errors import ConfigurationError
from service.callers.protocol import Identity, SignInError, bearer

if TYPE_CHECKING:
    from .config import ToyCallersConfig


class ToyCallers:
    """Whoever says the word is who they say."""

    def __init__(self, config: ToyCallersConfig) -> None:
        self._word = config.toy_word

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        """The user and the tenant that follow the word."""
        word, _, rest = bearer(headers).partition("-")
        user, _, tenant = rest.partition("-")
        if word != self._word or not tenant.isdigit():
            raise SignInError("that is not the word", condition="KEY_UNKNOWN")
        return Identity(Caller({"sub": user, "tenant": int(tenant)}), "key")

    def check(self) -> None:
        """There is a word."""
        if not self._word:
            raise ConfigurationError("there is no word")
