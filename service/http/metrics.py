"""Metrics for Prometheus, of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from embeddings.budget.report import BudgetReport
from embeddings.usage import TALLY, Tally

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Models(Collector):
    """What this process has asked of its models."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Read it whenever metrics are rendered."""
        labels = ("model", "purpose")
        requests = CounterMetricFamily(
            "ragstream_model_requests", "Requests to models that ended.", labels=(*labels, "outcome")
        )
        tokens = CounterMetricFamily(
            "ragstream_model_tokens",
            "Tokens as the provider counts them or, where it does not, estimated.",
            labels=(*labels, "direction"),
        )
        for (asked, outcome), count in sorted(self._tally.requests.copy().items()):
            requests.add_metric([*asked, outcome], count)
        for direction, counted in (("input", self._tally.input), ("output", self._tally.output)):
            for asked, count in sorted(counted.copy().items()):
                tokens.add_metric([*asked, direction], count)
        yield from (requests, tokens)


class Metrics:
    """Counters and histograms; labels are routes, statuses and conditions, never a name or a text of a request."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self._registry}
        self.requests = Counter("ragstream_http_requests", "Requests answered.", ["method", "route", "status"], **own)
        self.seconds = Histogram(
            "ragstream_http_request_seconds",
            "From a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            **own,
        )
        self.first_sentence_seconds = Histogram(
            "ragstream_first_sentence_seconds", "From a question to its first sentence.", buckets=_SECONDS, **own
        )
        self.refused = Counter(
            "ragstream_http_errors", "Errors answered, streams included.", ["route", "condition"], **own
        )
        self.streams = Gauge("ragstream_http_streams_open", "Streams of events that are open.", ["route"], **own)
        self._answers = Counter("ragstream_answers", "Answers given.", ["outcome"], **own)
        self._searches = Counter("ragstream_searches", "Searches answered.", ["outcome"], **own)
        self.lag = Gauge(
            "ragstream_freshness_lag_seconds", "How far the index is behind, as last seen; NaN while unknown.", **own
        )
        self.in_progress = Gauge("ragstream_requests_in_progress", "Threads at work for requests.", **own)
        self.watchers = Gauge("ragstream_watchers", "Clients who watch documents.", **own)
        self.watched = Gauge("ragstream_watched_documents", "Documents that are watched.", **own)
        self.budget_dollars = Gauge("ragstream_budget_dollars_today", "Dollars granted today.", ["section"], **own)
        self.budget_wait = Gauge(
            "ragstream_budget_wait_seconds",
            "How long a request to a model waits for its budget, by the limit that it waits for.",
            ["section", "limit"],
            **own,
        )
        self.lag.set(float("nan"))
        self._registry.register(Models(TALLY))

    def follow(
        self, in_progress: Callable[[], float], watchers: Callable[[], float], watched: Callable[[], float]
    ) -> None:
        """Read these whenever metrics are rendered."""
        self.in_progress.set_function(in_progress)
        self.watchers.set_function(watchers)
        self.watched.set_function(watched)

    def count_answer(self, answer: Mapping[str, Any]) -> None:
        """Count an answer by whether it says that nothing relevant was found."""
        self._answers.labels("abstained" if answer["abstained"] else "answered").inc()

    def count_search(self, result: Mapping[str, Any]) -> None:
        """Count a search by whether anything relevant was found."""
        self._searches.labels("irrelevant" if result["abstained"] else "relevant").inc()

    def see(self, freshness: Mapping[str, Any]) -> None:
        """Take over how far the index is behind; from any thread."""
        lag = freshness["lag_seconds"]
        self.lag.set(float("nan") if lag is None else lag)

    def see_budgets(self, budgets: Mapping[str, BudgetReport]) -> None:
        """Set what the ledgers of budgets say; from any thread."""
        self.budget_wait.clear()
        for section, report in budgets.items():
            self.budget_dollars.labels(section).set(report.dollars_today)
            self.budget_wait.labels(section, report.waiting_for or "none").set(report.seconds)

    def rendered(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)
