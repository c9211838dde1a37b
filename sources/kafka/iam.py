"""MSK's IAM tokens for a role of AWS: OAUTHBEARER around a presigned request (AWS's own library)."""

from __future__ import annotations

from collections.abc import Callable

from schemas.errors import ConfigurationError, UnavailableError
from sources.kafka.options import IamLogin

_SESSION = "ragstream"
"""Session name of an assumed role; it is constant, since a broker refuses a principal that changes."""


def token_source(login: IamLogin) -> Callable[[object], tuple[str, float]]:
    """Return the callback that signs a token whenever the client needs one: the token, and when it expires (epoch seconds).

    Raises ConfigurationError without a region; nothing is asked of AWS before the first call. The callback raises
    UnavailableError when AWS does not answer, ConfigurationError when it gives the job no credentials.
    """
    import botocore.session
    from botocore import exceptions

    region = login.region or botocore.session.Session().get_config_variable("region")
    if region is None:
        raise ConfigurationError(
            "source of type kafka: MSK's tokens are signed for a region, and none is known.",
            condition="SOURCE_KAFKA_REGION",
            hint="Name the brokers in `bootstrap_servers` as MSK does, or set AWS_REGION for the job.",
        )

    away = (
        exceptions.HTTPClientError,
        exceptions.ConnectionError,
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
    )

    def signed(_: object) -> tuple[str, float]:
        try:
            return _signed(login, region)
        except away as error:
            raise UnavailableError(f"AWS does not answer for a token of MSK ({type(error).__name__}).") from None
        except Exception as error:  # noqa: BLE001 - without credentials the library raises what Python does
            raise ConfigurationError(
                f"source of type kafka: MSK's token cannot be signed ({type(error).__name__}).",
                condition="SOURCE_KAFKA_TOKEN",
                hint="Give the job a role or keys; a role named in `kafka.sasl.jaas.config` must trust it.",
            ) from None

    return signed


def _signed(login: IamLogin, region: str) -> tuple[str, float]:
    from aws_msk_iam_sasl_signer import MSKAuthTokenProvider as signer  # noqa: N813 - a module named as a class

    if login.role_arn is not None:
        session = login.session_name or _SESSION
        token, expires_ms = signer.generate_auth_token_from_role_arn(region, login.role_arn, session)
    elif login.profile is not None:
        token, expires_ms = signer.generate_auth_token_from_profile(region, login.profile)
    else:
        token, expires_ms = signer.generate_auth_token(region)
    return token, expires_ms / 1000
