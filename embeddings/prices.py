"""Prices of models, and what a request costs by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request asks of a model: tokens, estimated or as the provider counted them."""

    input: int = 0
    output: int = 0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Price:
    """On-demand prices of a model in dollars."""

    input: float = 0.0
    """Of a million input tokens."""
    output: float = 0.0
    """Of a million output tokens."""
    requests: float = 0.0
    """Of a thousand requests."""

    def of(self, usage: Usage, requests: int = 1) -> float:
        """Dollars of what was asked for in so many requests."""
        tokens = usage.input * self.input + usage.output * self.output
        return tokens / 1_000_000 + requests * self.requests / 1000


PRICES: Mapping[str, Price] = {
    "amazon.titan-embed-text-v2": Price(0.02),
    "amazon.titan-embed-text-v1": Price(0.1),
    "amazon.nova-2-multimodal-embeddings": Price(0.135),
    "cohere.embed-v4": Price(0.12),
    "cohere.embed": Price(0.1),
    "amazon.nova-micro-v1": Price(0.035, 0.14),
    "amazon.nova-lite-v1": Price(0.06, 0.24),
    "amazon.nova-pro-v1": Price(0.8, 3.2),
    "amazon.nova-premier-v1": Price(2.5, 12.5),
    "anthropic.claude-3-haiku": Price(0.25, 1.25),
    "anthropic.claude-3-5-haiku": Price(0.8, 4.0),
    "anthropic.claude-3-5-sonnet": Price(3.0, 15.0),
    "anthropic.claude-3-7-sonnet": Price(3.0, 15.0),
    "anthropic.claude-sonnet-4-20250514": Price(3.0, 15.0),
    "cohere.rerank-v3-5": Price(requests=2.0),
}
"""On-demand prices in us-east-1 by a part of the model's id (Amazon Bedrock's page of prices, July 2025; Nova's embeddings, Embed
v4 and Rerank from lists of 2026). The first that fits counts; a model that is not listed has no known price."""


def price_of(model: str) -> Price | None:
    """The price of a model; None where it is unknown."""
    return next((price for name, price in PRICES.items() if name in model), None)
