"""Tokens by which a cluster of MSK lets a role of AWS in: OAUTHBEARER around a presigned request (AWS's own library)."""

from __future__ import annotations

from collections.abc import Callable

from schemas.errors import ConfigurationError
from sources.kafka_options import IamLogin

_SESSION = "ragstream"
"""Name of an assumed role's session; one that changed would be another principal, which a broker refuses."""


def token_source(login: IamLogin) -> Callable[[object], tuple[str, float]]:
    """Return the callback that signs a token whenever the client needs one: the token, and when it expires (epoch seconds).

    Raises ConfigurationError without a region; nothing is asked of AWS before the first call.
    """
    import botocore.session

    region = login.region or botocore.session.Session().get_config_variable("region")
    if region is None:
        raise ConfigurationError(
            "source of type kafka: MSK's tokens are signed for a region, and none is known.",
            condition="SOURCE_KAFKA_REGION",
            hint="Name the brokers in `bootstrap_servers` as MSK does, or set AWS_REGION for the job.",
        )

    def signed(_: object) -> tuple[str, float]:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider as signer  # noqa: N813 - a module named as a class

        if login.role_arn is not None:
            session = login.session_name or _SESSION
            token, expires_ms = signer.generate_auth_token_from_role_arn(region, login.role_arn, session)
        elif login.profile is not None:
            token, expires_ms = signer.generate_auth_token_from_profile(region, login.profile)
        else:
            token, expires_ms = signer.generate_auth_token(region)
        return token, expires_ms / 1000

    return signed
