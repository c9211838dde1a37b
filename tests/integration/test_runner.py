"""The runner on real Spark and a real broker: kills, outages, defects, signals, a second driver, draining."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyspark.sql import SparkSession

from glue_jobs.config.pipeline import load_config
from glue_jobs.runtime import JobContext
from glue_jobs.runtime.runner import run_queries
from glue_jobs.status.record import QueryRecord, StatusRecords, read_all
from local_stack.servers.kafka import Broker
from schemas.errors import StoppedError
from tests.integration import appending_job
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
JOB = Path(__file__).with_name("appending_job.py")
START_SECONDS = 240


@dataclass
class Pipeline:
    """One pipeline of the appending job, in a folder of its own."""

    folder: Path
    config: Path
    drivers: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(JOB), "--config", str(self.config), *arguments]
        with (self.folder / f"driver-{len(self.drivers)}.log").open("w") as log:
            driver = subprocess.Popen(command, stderr=log, stdout=log, text=True, env=environment)
        self.drivers.append(driver)
        return driver

    def run(self, *arguments: str) -> int:
        return self.start(*arguments).wait(START_SECONDS)

    def drain(self, spark: SparkSession) -> None:
        """What `--available-now` does, on the session of this test run: a driver's start is proven elsewhere."""
        config = load_config(str(self.config))
        context = JobContext(spark, config, available_now=True)
        run_queries(appending_job.plan(context), context, threading.Event(), StatusRecords(config.checkpoint))

    def log(self, which: int = -1) -> str:
        return (self.folder / f"driver-{range(len(self.drivers))[which]}.log").read_text()

    def events(self, which: int = -1) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log(which).splitlines() if line.startswith('{"ts"')]

    def tell(self, order: str) -> None:
        (self.folder / order).touch()

    def obeyed(self, order: str) -> bool:
        return not (self.folder / order).exists()

    def stops(self) -> bool:
        return any(event["msg"] == "stopping after the batches in flight" for event in self.events())

    def wrote(self) -> bool:
        return (self.folder / "wrote").exists()

    def is_held(self) -> bool:
        return (self.folder / "held").exists()

    def begun(self) -> int:
        """The newest batch that the query of Kafka has begun."""
        return max(int(file.name) for file in (self.folder / "checkpoints/land_kafka/offsets").glob("[0-9]*"))

    def landed(self) -> Counter[tuple[str, str]]:
        try:
            table = DeltaTable(str(self.folder / "lake/changes"))
        except TableNotFoundError:
            return Counter()
        rows = table.to_pyarrow_table(columns=["partition", "position"]).to_pylist()
        return Counter((row["partition"], row["position"]) for row in rows)

    def record(self) -> QueryRecord:
        return next(iter(read_all(str(self.folder / "checkpoints"))))


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Callable[[str], Pipeline]]:
    made: list[Pipeline] = []

    def create(source: str) -> Pipeline:
        config = tmp_path / "pipeline.yaml"
        config.write_text(
            f"name: appending\nsource: {source}\ntables: [{{table: public.t, keys: [id]}}]\n"
            f"lake: {{path: {tmp_path}/lake}}\ncheckpoint: {tmp_path}/checkpoints\n"
        )
        made.append(Pipeline(tmp_path, config))
        return made[-1]

    yield create
    for pipeline in made:
        for driver in pipeline.drivers:
            if driver.poll() is None:
                driver.kill()
                driver.wait()


@pytest.fixture
def topic(kafka: Broker, new_topic: Callable[..., str]) -> tuple[str, Callable[[int], None]]:
    name = new_topic()
    producer = kafka.producer()

    def produce(count: int) -> None:
        for number in range(count):
            producer.produce(name, json.dumps({"n": number}).encode())
        producer.flush()

    return (
        f"{{type: kafka, envelope: debezium, bootstrap_servers: '127.0.0.1:{kafka.port}', topics: [{name}]}}",
        produce,
    )


def once_each(count: int) -> Counter[tuple[str, str]]:
    return Counter({("0", str(offset)): 1 for offset in range(count)})


def files(tmp_path: Path, lines: int, batch: int) -> str:
    recorded = tmp_path / "recorded.jsonl"
    first = len(recorded.read_text().splitlines()) if recorded.exists() else 0
    with recorded.open("a") as file:
        for offset in range(first, first + lines):
            event = {"topic": "h.public.t", "key": {"id": offset}, "value": {}, "partition": 0, "offset": offset}
            file.write(json.dumps(event | {"timestamp": 1, "headers": []}) + "\n")
    return f"{{type: files, format: kafka, envelope: debezium, path: [{recorded}], max_records_per_trigger: {batch}}}"


def test_second_driver_waits_goes_on_after_a_kill_and_ends_its_batch(
    pipeline: Callable[[str], Pipeline], topic: tuple[str, Callable[[int], None]]
) -> None:
    source, produce = topic
    appending = pipeline(source)
    produce(20)
    first = appending.start()
    eventually(appending.wrote, START_SECONDS, first)
    second = appending.start()
    waiting = "another driver runs this query; waiting for it to end"
    eventually(lambda: any(event["msg"] == waiting for event in appending.events()), START_SECONDS, second)
    appending.tell("kill-after-write")
    produce(5)
    assert first.wait(START_SECONDS) == -signal.SIGKILL, "killed before its commit"
    produce(5)
    eventually(lambda: appending.landed() == once_each(30), START_SECONDS, second)
    eventually(lambda: appending.record().as_of_us > 0, START_SECONDS, second)
    # SPARK-55271: running the batch again killed the query once, and the runner started it again in this process.
    kinds = [event["kind"] for event in appending.events() if "kind" in event]
    assert kinds == ["SPARK-55271"]
    appending.tell("hold")
    produce(5)
    eventually(appending.is_held, START_SECONDS, second)
    in_flight = appending.begun()
    second.send_signal(signal.SIGTERM)
    eventually(appending.stops, driver=second)
    (appending.folder / "hold").unlink()
    assert second.wait(60) == 0
    assert appending.record().batch_id >= in_flight, "the batch was finished"
    assert set(appending.landed().values()) == {1}


def test_draining_kafka_ends_well_also_when_there_is_nothing_left(
    spark: SparkSession, pipeline: Callable[[str], Pipeline], topic: tuple[str, Callable[[int], None]]
) -> None:
    source, produce = topic
    appending = pipeline(source)
    produce(10)
    appending.drain(spark)
    appending.drain(spark)
    assert appending.landed() == once_each(10)


def test_a_python_source_is_drained_in_all_its_batches(
    spark: SparkSession, pipeline: Callable[[str], Pipeline], tmp_path: Path
) -> None:
    appending = pipeline(files(tmp_path, lines=12, batch=5))
    appending.drain(spark)
    assert appending.landed() == once_each(12)
    assert appending.record().counts == {"t": {"batches": 3}}
    files(tmp_path, lines=2, batch=5)
    appending.drain(spark)
    assert appending.landed() == once_each(14)
    assert appending.record().counts == {"t": {"batches": 4}}
    assert appending.record().running is False


def test_an_outage_met_by_a_worker_is_waited_out(
    spark: SparkSession, pipeline: Callable[[str], Pipeline], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    appending = pipeline(files(tmp_path, lines=4, batch=5))
    appending.tell("unavailable")
    appending.drain(spark)
    assert appending.obeyed("unavailable")
    assert appending.landed() == once_each(4)
    contexts = [getattr(record, "context", {}) for record in caplog.records]
    errors = [context["error"] for context in contexts if context.get("kind") == "unavailable"]
    assert errors == ["UNAVAILABLE: the store does not answer"]


def test_source_that_lost_something_stops_the_job_and_says_so(
    spark: SparkSession, pipeline: Callable[[str], Pipeline], tmp_path: Path
) -> None:
    appending = pipeline(files(tmp_path, lines=4, batch=5))
    appending.tell("gone")
    with pytest.raises(StoppedError, match=r"the shard is gone\nHint: Run `ragstream rebuild`\.") as raised:
        appending.drain(spark)
    assert raised.value.exit_status == 3


def test_a_defect_is_retried_then_exits_3_and_quotes_no_row(
    spark: SparkSession, pipeline: Callable[[str], Pipeline], tmp_path: Path
) -> None:
    appending = pipeline(files(tmp_path, lines=4, batch=5))
    appending.tell("defect")
    assert appending.run() == 3
    assert "query land_files failed 4 times at micro-batch 0: ValueError at appending_job.py" in appending.log()
    assert "the text of a row" not in appending.log()
    (appending.folder / "defect").unlink()
    appending.drain(spark)
    assert appending.landed() == once_each(4)


def test_asked_twice_it_ends_at_once(pipeline: Callable[[str], Pipeline], tmp_path: Path) -> None:
    appending = pipeline(files(tmp_path, lines=4, batch=4))
    appending.tell("hold")
    driver = appending.start()
    eventually(lambda: appending.landed() == once_each(4), START_SECONDS, driver)
    driver.send_signal(signal.SIGINT)
    eventually(appending.stops, driver=driver)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(60) == 130
