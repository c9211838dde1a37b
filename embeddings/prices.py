"""Prices of embedding models."""

from __future__ import annotations

USD_PER_1000_TOKENS = {
    "amazon.titan-embed-text-v2": 0.00002,
    "amazon.titan-embed-text-v1": 0.0001,
    "cohere.embed": 0.0001,
}
"""On-demand prices of embedding models in us-east-1 (AWS's price list, 2025); a model that is not listed counts 0."""


def price_of(model: str) -> float | None:
    """Dollars for 1,000 tokens of a model; None where the price is unknown."""
    return next((usd for name, usd in USD_PER_1000_TOKENS.items() if name in model), None)
