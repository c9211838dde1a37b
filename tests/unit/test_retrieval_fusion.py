import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.ranking.fusion import FUSION, MINILM, UNMEASURED, Fusion, Relevance, Tuning, fuse, tuning_of
from schemas.errors import ConfigurationError
from sinks.idf import MOST_WEIGHED, shares, weighed, worth_searching
from sinks.search import Hit


def hit(document: str, similarity: float, coverage: float, chunk_index: int = 0) -> Hit:
    chunk = f"{document}.{chunk_index}"
    return Hit(document, "public.t", {"id": 1}, chunk, chunk_index, "text", {}, similarity, coverage)


def test_a_rare_word_outweighs_a_resemblance() -> None:
    order = [ranked.hit.document_id for ranked in fuse([hit("near", 0.6, 0.0)], [hit("code", 0.3, 0.9)])]
    assert order == ["code", "near"]


def test_words_that_are_in_any_text_change_no_order() -> None:
    order = [ranked.hit.document_id for ranked in fuse([hit("answer", 0.4, 0.0), hit("other", 0.39, 0.45)])]
    assert order == ["answer", "other"]


def test_without_common_words_meaning_alone_decides() -> None:
    order = [ranked.hit.document_id for ranked in fuse([hit("a", 0.31, 0.0), hit("b", 0.6, 0.0), hit("c", 0.5, 0.0)])]
    assert order == ["b", "c", "a"]


def test_a_document_stands_once_with_its_best_chunk() -> None:
    (only,) = fuse([hit("d", 0.4, 0.1, 0)], [hit("d", 0.5, 0.4, 3), hit("d", 0.5, 0.1, 1)])
    assert only.hit.chunk_index == 3


hits = st.builds(
    hit,
    st.sampled_from("abcdef"),
    st.floats(-1, 1, allow_nan=False),
    st.floats(0, 1, allow_nan=False),
    st.integers(0, 3),
)


@given(st.lists(hits), st.lists(hits))
def test_the_order_does_not_depend_on_which_half_found_a_hit(one: list[Hit], other: list[Hit]) -> None:
    assert fuse(one, other) == fuse([*other, *one])
    assert len(fuse(one, other)) == len({h.document_id for h in [*one, *other]})
    assert all(ranked.score <= 1 for ranked in fuse(one, other))


@pytest.mark.parametrize(("similarity", "coverage"), [(0.49, 0.0), (0.30, 0.7), (0.16, 0.98), (-0.1, 1.0)])
def test_the_needed_similarity_falls_with_the_words_in_common(similarity: float, coverage: float) -> None:
    assert MINILM.accepts(hit("d", similarity, coverage))


@pytest.mark.parametrize(("similarity", "coverage"), [(0.47, 0.0), (0.30, 0.2), (0.14, 0.98)])
def test_what_resembles_too_little_is_not_relevant(similarity: float, coverage: float) -> None:
    assert not MINILM.accepts(hit("d", similarity, coverage))


def test_a_model_that_nobody_measured_answers_nothing() -> None:
    assert tuning_of("all-MiniLM-L6-v2") == Tuning(MINILM)
    unmeasured = tuning_of("amazon.titan-embed-text-v2:0")
    assert unmeasured == Tuning(UNMEASURED)
    assert not unmeasured.is_measured
    assert not unmeasured.relevance.accepts(hit("d", 1.0, 1.0))


def test_a_kept_calibration_comes_before_the_models_name() -> None:
    tuning = Tuning(Relevance(0.5, 0.7, 0.4, 0.1), Fusion(0.3, 0.2, 0.9))
    assert tuning_of("all-MiniLM-L6-v2", tuning.as_json()) == tuning
    assert tuning_of("any", tuning.as_json(), 0.2).fusion == tuning.fusion
    with pytest.raises(ConfigurationError, match="another release"):
        tuning_of("any", {"relevance": {"new": 1}})


def test_a_least_similarity_of_ones_own_is_needed_whatever_the_words() -> None:
    own = tuning_of("all-MiniLM-L6-v2", least=0.9)
    assert [own.relevance.accepts(hit("d", 0.9, coverage)) for coverage in (0.0, 1.0)] == [True, True]
    assert [own.relevance.accepts(hit("d", 0.89, coverage)) for coverage in (0.0, 1.0)] == [False, False]
    assert own.fusion == FUSION
    assert tuning_of("any", least=-1).relevance.accepts(hit("d", -1.0, 0.0))


def test_every_word_of_short_question_counts_whether_row_holds_it_or_not() -> None:
    counts = {"unknown": 0, "common": 500, "rare": 1}
    assert weighed(counts) == counts
    assert shares(counts, 1000)["unknown"] > shares(counts, 1000)["rare"] > shares(counts, 1000)["common"]


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(0, 3000), min_size=MOST_WEIGHED + 1))
def test_of_a_long_question_the_rarest_words_that_some_row_holds_count(counts: dict[str, int]) -> None:
    kept = weighed(counts)
    row_counts = sorted(count for count in counts.values() if count)
    assert sorted(kept.values()) == row_counts[:MOST_WEIGHED]
    assert sum(shares(kept, 3000).values()) == pytest.approx(1 if kept else 0)
    assert set(worth_searching(kept)) <= kept.keys()
