"""Who may use the service: one file or folder a way of signing in, one protocol, one contract suite.

Reading a configuration imports no client: `open_callers` does.
"""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field

from service.callers.alb.config import AlbConfig
from service.callers.api_keys import ApiKeys, ApiKeysConfig
from service.callers.jwt.config import JwtConfig
from service.callers.none import NoSignIn, NoSignInConfig
from service.callers.protocol import Callers

type CallersConfig = Annotated[AlbConfig | ApiKeysConfig | JwtConfig | NoSignInConfig, Field(discriminator="type")]
"""The key `callers` of `serve`."""


def open_callers(config: CallersConfig) -> Callers:
    """The callers a configuration describes; nothing is connected yet."""
    match config:
        case NoSignInConfig():
            return NoSignIn(config)
        case ApiKeysConfig():
            return ApiKeys(config)
        case JwtConfig():
            from service.callers.jwt.callers import JwtCallers

            return JwtCallers(config)
        case AlbConfig():
            from service.callers.alb.callers import AlbCallers

            return AlbCallers(config)
        case _:
            assert_never(config)
