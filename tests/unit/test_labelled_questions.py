from collections import Counter

from benchmarks.labelled import edited, edits, questions, rows
from transforms.documents.words import words_of

TEXTS = {
    (table, row["id"]): (f"{row['title']} {row['body']}", row["body"])
    for table, table_rows in rows().items()
    for row in table_rows
}


def test_there_are_questions_of_every_kind_in_both_halves() -> None:
    counts = Counter((question.kind, question.half) for question in questions())
    assert counts["own", "tune"] + counts["own", "held_out"] >= 150
    assert all(counts["paraphrase", half] == counts["own", half] >= 75 for half in ("tune", "held_out"))
    assert all(counts[kind, half] >= 16 for kind in ("near", "far") for half in ("tune", "held_out"))
    halves = {table: {q.half for q in questions() for t, _ in q.expected if t == table} for table in rows()}
    assert all(len(half) == 1 for half in halves.values())


def test_a_paraphrase_has_no_word_in_common_with_its_row() -> None:
    for question in questions():
        for row in question.expected if question.kind == "paraphrase" else ():
            assert set(words_of(question.query, "english")).isdisjoint(words_of(TEXTS[row][0], "english")), question


def test_each_row_holds_its_answer_once_and_its_edit_replaces_it() -> None:
    after = {(table, row["id"]): row["body"] for table, table_rows in edited().items() for row in table_rows}
    for question in questions():
        for row in question.expected:
            assert edits()[row][0] == question.answer
            assert TEXTS[row][1].count(question.answer) == 1
            assert question.answer not in after[row] or question.answer in edits()[row][1]
