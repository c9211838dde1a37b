from local_stack.demo.helpdesk import questions, rows


def test_helpdesk_is_large_enough_and_its_texts_have_the_sizes_it_promises() -> None:
    articles, tickets = rows("articles"), rows("tickets")
    assert len(articles) >= 60
    assert len(tickets) >= 200
    assert all(80 <= len(row["body"].split()) <= 400 for row in articles)
    assert all(30 <= len(row["body"].split()) <= 120 for row in tickets)
    assert len({row["title"] for row in articles} | {row["subject"] for row in tickets}) == len(articles) + len(tickets)


def test_every_label_names_a_row_that_holds_the_answer() -> None:
    texts = {("public.articles", row["id"]): f"{row['title']} {row['body']}" for row in rows("articles")}
    texts |= {("public.tickets", row["id"]): f"{row['subject']} {row['body']}" for row in rows("tickets")}
    for question in questions():
        for row in question.expected:
            assert any(phrase.lower() in texts[row].lower() for phrase in question.answer_contains), question


def test_questions_of_every_kind_are_labelled() -> None:
    asked = questions()
    assert len(asked) >= 60
    assert len({question.query_id for question in asked}) == len(asked)
    assert all(bool(question.expected) == (question.kind != "none") for question in asked)
    assert {question.kind for question in asked} == {"plain", "rare", "none"}
