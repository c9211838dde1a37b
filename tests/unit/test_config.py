"""The pipeline's configuration: everything wrong at once, with its line; references; nothing secret shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glue_jobs.config import json_schema as config_schema
from glue_jobs.config.pipeline import PipelineConfig, decode_context, load_config, of_tables, parse_config
from glue_jobs.config.values import Substitution, redaction, stack_value
from glue_jobs.operations import checks
from schemas.errors import ConfigurationError
from sources import KafkaSourceConfig

ROOT = Path(__file__).resolve().parents[2]
GOOD = """\
name: helpdesk
source: {type: kafka, envelope: debezium, bootstrap_servers: "${env:KAFKA_BOOTSTRAP}", topics: [h.public.tickets]}
tables:
  - table: public.tickets
    keys: [id]
    document: {template: "{subject}", metadata: [status]}
lake: {path: ./lake, land_every: 500ms, merge_every: 2m}
embedding: {type: bedrock, model: "amazon.titan-embed-text-v2:0", dimensions: 512}
sinks:
  - {type: pgvector, dsn: "${secret:vectors}", table: helpdesk}
checkpoint: ./checkpoints
"""
SECRET = "postgresql://writer:swordfish99@db/vectors"


def load(text: str, **environment: str) -> PipelineConfig:
    return parse_config(text, "pipeline.yaml", Substitution(environment, Path("nowhere")))


def good(text: str = GOOD) -> PipelineConfig:
    return load(text, KAFKA_BOOTSTRAP="127.0.0.1:9092", VECTORS=SECRET)


def refusal(text: str, **environment: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(text, **({"KAFKA_BOOTSTRAP": "127.0.0.1:9092", "VECTORS": SECRET} | environment))
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_a_good_configuration_is_read_with_its_durations_and_defaults() -> None:
    config = good()
    assert (config.lake.land_every, config.lake.merge_every) == (0.5, 120.0)
    assert isinstance(config.sources[0], KafkaSourceConfig)
    assert config.sources[0].bootstrap_servers == "127.0.0.1:9092"
    assert config.owner(config.tables[0]) == config.sources[0].name == "kafka"
    assert config.lake.path == str(Path("lake").resolve())


def test_a_least_similarity_is_a_cosine() -> None:
    assert "retrieval.min_similarity: input should be less than or equal to 1" in refusal(
        GOOD + "retrieval: {min_similarity: 2}\n"
    )


def test_rules_of_access_are_read_and_checked_against_the_metadata() -> None:
    text = GOOD + "access:\n  tenant_id: ${claim:tenant}\n"
    assert good(text).access == {"tenant_id": "${claim:tenant}"}
    with pytest.raises(ConfigurationError, match="does not keep 'tenant_id' as metadata") as raised:
        checks.parts(good(text))["access"]()
    assert "document.metadata" in raised.value.hint
    checks.parts(good(text.replace("[status]", "[status, tenant_id]")))["access"]()
    assert "access" not in checks.parts(good())
    assert "pipeline.yaml:12: access: the value of 'tenant_id' is a claim as a whole" in refusal(
        GOOD + 'access: {tenant_id: "acme-${claim:tenant}"}\n'
    )


def test_json_is_read_as_well_tabs_included() -> None:
    source = {"type": "files", "format": "kafka", "envelope": "dms", "path": ["a"]}
    value: dict[str, object] = {"name": "x", "source": source}
    value |= {"tables": [{"table": "public.a", "keys": ["id"]}], "lake": {"path": "l"}, "checkpoint": "c"}
    assert load(json.dumps(value, indent="\t")).sources[0].envelope == "dms"


def test_every_problem_is_told_at_once_with_path_line_and_remedy() -> None:
    text = (
        GOOD.replace("keys:", "key:")
        .replace("500ms", "soon")
        .replace("512", "511")
        .replace("table: helpdesk", "tabel: h")
    )
    message = refusal(text)
    assert "pipeline.yaml:5: tables[0].key: this key is unknown.\n      Did you mean `keys`?" in message
    assert "pipeline.yaml:4: tables[0].keys: this key is missing.\n      The columns of the primary key." in message
    assert "pipeline.yaml:7: lake.land_every: a duration is expected here" in message
    assert "pipeline.yaml:8: embedding: dimensions: amazon.titan-embed-text-v2:0 offers 256, 512, 1024" in message
    assert "pipeline.yaml:10: sinks[0].tabel: this key is unknown.\n      Did you mean `table`?" in message
    assert "pipeline.yaml: 6 problems; nothing was started." in message


def test_key_of_an_earlier_version_names_the_one_that_took_its_place() -> None:
    files = GOOD.replace(
        GOOD.splitlines()[1], "source: {type: files, format: kafka, envelope: dms, path: [a], batch: 5}"
    )
    for text, key, successor in (
        (GOOD + "real_time: false\n", "real_time", "continuous"),
        (GOOD + "retrieval: {relevance: 0.4}\n", "retrieval.relevance", "min_similarity"),
        (files, "source.batch", "max_records_per_trigger"),
    ):
        assert f"{key}: this key is unknown.\n      Write `{successor}`." in refusal(text)
    assert good().continuous
    assert not good(GOOD + "continuous: false\n").continuous


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("keys: [id]", "keys: []", "tables[0].keys: at least one is expected here"),
        ("keys: [id]", "keys: id", "tables[0].keys: a list is expected here"),
        ("[status]", "[status], chunk: {max_tokens: many}", "tables[0].document.chunk.max_tokens: a whole number is expected"),
        ("type: pgvector", "type: postgres", "one of those known.\n      Write one of: 'documentdb', 'opensearch', 'pgvector'"),
        ('"{subject}"', '"subject"', "tables[0].document.template: the template names no column; write {column}"),
        ("public.tickets\n", "public.tickets\n    source: desk\n", "tables[0].source: no source is named desk"),
        ("embedding:", "capture: {type: dms, source: desk}\nembedding:", "capture.source: no source is named desk"),
        ("embedding:", "embeddings:", "sinks: a store needs vectors, and there is no `embedding`"),
        ("checkpoint: ./checkpoints", "checkpoint: a\ncheckpoint: b", "yaml:12: checkpoint: this key is on line 11 already"),
        ("${env:KAFKA_BOOTSTRAP}", "${env:MISSING}", "source.bootstrap_servers: the variable MISSING is not set"),
        ("${secret:vectors}", "${secret:other}", "sinks[0].dsn: the secret other is not set"),
        ("${secret:vectors}", "${sekret:vectors}", "sinks[0].dsn: ${sekret:vectors} is no reference"),
        ("name: helpdesk", "name: 7", "name: text is expected here"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_where_it_stands(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert expected in refusal(GOOD.replace(old, new, 1))


def test_a_table_carried_twice_and_a_name_given_twice_are_told_once() -> None:
    table = "  - table: public.tickets\n    keys: [id]\n"
    sink = '  - {type: pgvector, dsn: "${secret:vectors}", table: helpdesk}\n'
    message = refusal(GOOD.replace("lake:", f"{table}lake:", 1).replace(sink, sink * 2))
    assert message.count("more than one table is called public.tickets") == 1
    assert message.count("more than one store is called pgvector") == 1


def test_with_several_sources_a_table_must_say_which_one_owns_it() -> None:
    sources = "source:\n" + "".join(
        f"  - {{type: files, name: {name}, format: kafka, envelope: debezium, path: [a]}}\n" for name in ("kb", "desk")
    )
    first_line = GOOD.splitlines()[1]
    message = refusal(GOOD.replace(first_line, sources))
    assert (
        "several sources, and this table does not say which one owns it.\n      Add `source:` with one of: kb, desk"
        in message
    )
    config = good(GOOD.replace(first_line, sources).replace("keys: [id]", "keys: [id]\n    source: desk"))
    assert [table.table for table in config.tables_of("desk")] == ["public.tickets"]
    assert decode_context(config, "kb").others == {"public.tickets"}
    assert set(decode_context(config, "desk").tables) == {"public.tickets"}


def test_text_that_is_no_yaml_is_refused_with_its_place_and_unquoted() -> None:
    message = refusal("name: helpdesk\nsource: {type: kafka, password: hunter2-hunter2\ntables: [\n")
    assert "pipeline.yaml:" in message
    assert "hunter2" not in message


def test_words_that_old_yaml_reads_otherwise_stay_what_they_are() -> None:
    config = good(GOOD.replace("keys: [id]", "keys: [no, on, 12:30, 2026-01-01]"))
    assert config.tables[0].keys == ("no", "on", "12:30", "2026-01-01")


def test_a_secret_stands_in_no_repr_and_no_error() -> None:
    config = good()
    shown = f"{config!r} {config} {config.sinks[0]!r} {config.model_dump()}"
    assert "swordfish99" not in shown
    broken = refusal(GOOD.replace("table: helpdesk", "table: helpdesk, schema: x").replace("type: pgvector", "type: x"))
    assert "swordfish99" not in broken
    assert config.redact(f"cannot connect to {SECRET} as swordfish99") == "cannot connect to *** as ***"


def test_plain_options_that_hold_a_secret_are_redacted_too() -> None:
    jaas = '"PlainLoginModule password=${secret:vectors};"'
    config = good(GOOD.replace("topics:", f"options: {{kafka.sasl.jaas.config: {jaas}}}, topics:"))
    assert isinstance(config.sources[0], KafkaSourceConfig)
    assert SECRET in config.sources[0].options["kafka.sasl.jaas.config"]
    assert "swordfish99" not in repr(config)


def test_the_environment_comes_before_the_local_stack_and_a_default_after_it(tmp_path: Path) -> None:
    stack = {"kafka": {"bootstrap_servers": "local:1"}, "model": {"endpoint_url": "http://local:2"}}
    (tmp_path / "stack.json").write_text(json.dumps(stack))
    (tmp_path / "secrets.json").write_text(json.dumps({"vectors": "dsn-from-file"}))

    def looked_up(reference: str, **environment: str) -> object:
        return Substitution(environment, tmp_path).apply({"x": reference})["x"]

    assert looked_up("${env:KAFKA_BOOTSTRAP}", KAFKA_BOOTSTRAP="mine:9") == "mine:9"
    assert looked_up("${env:KAFKA_BOOTSTRAP}") == looked_up("${env:KAFKA_BOOTSTRAP_SERVERS}") == "local:1"
    assert looked_up("${env:MODEL_ENDPOINT_URL:-http://else}") == "http://local:2"
    assert looked_up("${env:OPENSEARCH_URL:-http://else}/index") == "http://else/index"
    assert looked_up("${env:OPENSEARCH_URL:-}") is None
    assert looked_up("${secret:vectors}") == "dsn-from-file"
    assert looked_up("${secret:vectors}", VECTORS="mine") == "mine"


def test_what_is_substituted_is_not_searched_again() -> None:
    assert Substitution({"A": "${env:B}"}, Path("nowhere")).apply("${env:A}") == "${env:B}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("CONNECT_URL", "u"), ("AWS_REGION", "r"), ("AWS_DEFAULT_REGION", "r"), ("POSTGRES_DSN", None), ("PATH", None)],
)
def test_a_variable_names_a_key_of_the_local_stack(name: str, expected: str | None) -> None:
    assert stack_value({"connect": {"url": "u"}, "aws": {"region": "r"}}, name) == expected


def test_short_secrets_do_not_blank_whole_lines() -> None:
    assert redaction({"a", ""})("a day in March") == "a day in March"


def test_an_epoch_reaches_the_sources_it_is_about() -> None:
    config = good(f"{GOOD}epochs: [{{at: 2026-11-24T10:00:00Z}}, {{at: 2026-11-24T09:00:00+01:00, source: kafka}}]\n")
    assert decode_context(config, "kafka").epoch_starts_us == (1795507200000000, 1795514400000000)


def test_some_tables_are_read_from_beginning_with_a_checkpoint_of_their_own() -> None:
    two = GOOD.replace("source: {type", "source:\n  - {name: late, starting: latest, type").replace(
        "tables:\n",
        "  - {name: other, type: kafka, envelope: dms, bootstrap_servers: '127.0.0.1:1', topics: [o]}\ntables:\n"
        "  - {table: public.notes, keys: [id], source: other}\n",
    )
    whole = good(two.replace("table: public.tickets", "table: public.tickets\n    source: late"))
    part = of_tables(whole, ["public.tickets"])
    assert [table.table for table in part.tables] == ["public.tickets"]
    (source,) = part.sources
    assert isinstance(source, KafkaSourceConfig)
    assert (source.name, source.starting) == ("late", "earliest")
    assert part.checkpoint == f"{whole.checkpoint}/tables/public.tickets"
    assert part.redact(SECRET) != SECRET
    with pytest.raises(ConfigurationError, match=r"'public\.gone' is not configured"):
        of_tables(whole, ["public.gone"])


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.yaml: the configuration cannot be read: No such file"):
        load_config(tmp_path / "nothing.yaml")


def test_the_schema_file_is_what_the_models_say() -> None:
    file = ROOT / "job_configs/schema.json"
    assert file.read_text() == config_schema.rendered(), (
        "run: python -m glue_jobs.config.json_schema > job_configs/schema.json"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "job_configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configurations_in_the_repository_load(path: Path) -> None:
    class Everything(dict[str, str]):
        def get(self, name: str, default: object = None) -> str:
            return dict.fromkeys(("KAFKA_BOOTSTRAP", "KAFKA_BOOTSTRAP_SERVERS"), "127.0.0.1:9092").get(
                name, f"https://{name.lower()}.example"
            )

    config = parse_config(path.read_text(), path.name, Substitution(Everything(), Path("nowhere")))
    assert config.tables


def test_reading_a_configuration_imports_no_client_and_no_spark() -> None:
    clients = {
        "pyspark", "pyarrow", "pandas", "psycopg", "pymysql", "boto3", "botocore", "pymongo", "opensearchpy", "confluent_kafka",
        "deltalake", "onnxruntime", "redshift_connector",
    }  # fmt: skip
    program = "import sys, glue_jobs.config.pipeline; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert clients & set(done.stdout.split()) == set()
