"""A recorded line becomes the record it stands for, byte for byte."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.records import Record
from sources.files.recorded import MALFORMED_HEADER, Format, parse_line


def kafka(**members: str) -> bytes:
    """Write a line from raw JSON texts."""
    texts = {
        "topic": '"t"',
        "key": "null",
        "value": "{}",
        "partition": "0",
        "offset": "7",
        "timestamp": "1",
        "headers": "[]",
    }
    return ("{" + ", ".join(f'"{name}": {text}' for name, text in (texts | members).items()) + "}").encode()


def read(line: bytes, form: Format = "kafka") -> Record:
    return parse_line(line, form, name="events.jsonl", start=40)


def test_a_kafka_line_becomes_its_record() -> None:
    record = read(
        kafka(key='{"id": 1}', value='{"op": "c"}', headers='[["h", "v"], ["n", null]]', timestamp="1795331728345")
    )
    assert record == Record("t", "0", "7", b'{"id": 1}', b'{"op": "c"}', (("h", b"v"), ("n", None)), 1795331728345)


def kinesis(data: str, arrival: str = "null") -> bytes:
    """Write a line from raw JSON texts."""
    head = '{"stream": "s", "shard_id": "shardId-0", "sequence_number": "4958", "partition_key": "a.b"'
    return f'{head}, "data": {data}, "arrival": {arrival}}}'.encode()


def test_a_kinesis_line_becomes_its_record() -> None:
    line = kinesis('{"data": {}}', "1795331728.5")
    assert read(line, "kinesis") == Record("s", "shardId-0", "4958", b"a.b", b'{"data": {}}', (), 1795331728500)


@pytest.mark.parametrize(
    "arrival",
    ['"2026-11-22T07:15:28.500Z"', "1795331728500", "1795331728.5", '"2026-11-22T08:15:28.5+01:00"', '"1795331728500"'],
)
def test_an_arrival_may_be_written_in_any_usual_way(arrival: str) -> None:
    assert read(kinesis("{}", arrival), "kinesis").timestamp_ms == 1795331728500


@pytest.mark.parametrize(
    "number", ["1.10", "1e400", "9223372036854775808", "-0.0", "1" * 5000, "12345678901234567.890", "NaN"]
)
def test_a_number_arrives_as_it_was_recorded(number: str) -> None:
    assert read(kafka(value=f'{{"n":  {number}}}')).value == f'{{"n":  {number}}}'.encode()


@pytest.mark.parametrize("text", [r'"\ud800"', r'"\u0000"', '"ü☃😀"', r'"a\"}b"'])
def test_text_arrives_as_it_was_recorded(text: str) -> None:
    assert read(kafka(value=f'{{"t": {text}}}')).value == f'{{"t": {text}}}'.encode()


def test_bytes_that_are_no_utf8_pass_through() -> None:
    line = kafka(value='{"t": "x"}').replace(b'"x"', b'"\xff\xfe"')
    assert read(line).value == b'{"t": "\xff\xfe"}'


def test_null_is_a_tombstone_and_a_string_stands_for_its_text() -> None:
    assert read(kafka(value="null")).value is None
    assert read(kafka(value='"{\\"op\\": "')).value == b'{"op": '


def test_data_may_be_base64_of_any_bytes() -> None:
    encoded = json.dumps(base64.b64encode(b'{"n": 1.10}\n').decode())
    assert read(kinesis(encoded), "kinesis").value == b'{"n": 1.10}\n'
    assert read(kinesis('"no base64!"'), "kinesis").value == b"no base64!"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"nonsense",
        b'{"topic": "t"}',
        kafka()[:-9],
        kafka() + b" {}",
        kafka(headers='[["a"]]'),
        kafka(headers="3"),
        kafka(timestamp='"soon"'),
        kafka(timestamp="1e400"),
        kafka(topic="null"),
        kafka(value="[" * 100_000),
        b'{"a": 1,',
        b"\x00\xff",
    ],
)
def test_a_malformed_line_is_kept_and_marked(line: bytes) -> None:
    record = read(line)
    assert (record.stream, record.position, record.value) == ("events.jsonl", "40", line)
    assert [name for name, _ in record.headers] == [MALFORMED_HEADER]


def test_a_kafka_record_without_a_time_has_none() -> None:
    assert read(kafka(timestamp="-1")).timestamp_ms is None


@given(st.binary(max_size=200), st.sampled_from(["kafka", "kinesis"]))
def test_no_line_raises(line: bytes, form: Format) -> None:
    read(line, form)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _JSON), st.sampled_from([None, 1]), st.sampled_from([True, False]))
def test_any_value_is_cut_out_of_its_line_unchanged(
    value: dict[str, object],
    indent: int | None,
    ascii_only: bool,  # noqa: FBT001 - drawn by Hypothesis
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    line = kafka(value=text).decode().encode("utf-8", "surrogatepass")
    assert read(line).value == text.encode("utf-8", "surrogatepass")
