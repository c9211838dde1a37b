"""Callers with JSON Web Tokens of an OpenID provider, such as Cognito."""
