"""The page in a real Chromium, over the real service, store and pipeline: what a reader sees, and what never happens."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from local_stack.demo.answers import EDITED, QUESTIONS
from local_stack.demo.edit import edited
from local_stack.faults.tcp import FaultProxy
from local_stack.servers.aws import Ministack
from local_stack.servers.memorydb import MemoryDB
from tests import desk_facts
from tests.e2e.desk import (
    HOSTILE,
    HOSTILE_QUESTION,
    HUB,
    KEYS,
    MARKUP,
    QUESTION,
    SECRET,
    SECRET_QUESTION,
    Desk,
    Servers,
    open_desk,
)
from tests.e2e.windows import accessibility_tree, ask, chromium, listen, sign_in, violations, window
from tests.endpoint import Endpoint
from tests.helpdesk import LOCAL
from tests.servers import new_database
from tests.serving import serving
from tests.waiting import eventually
from tests.warehouse_fixtures import warehouse_config

PHONE = {"viewport": {"width": 360, "height": 720}, "has_touch": True, "is_mobile": True}
_NOTE_THE_MARK = """() => new MutationObserver((_, observer) => {
  if (!document.querySelector('.turn.stale')) return;
  window.markedAt = Date.now();
  observer.disconnect();
}).observe(document.body, {subtree: true, childList: true, attributes: true})"""


@pytest.fixture(scope="module")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    get = request.getfixturevalue
    for source_dsn in new_database(get("postgres")):
        for store_dsn in new_database(get("vectors")):
            mark = str(get("local_stack").directory)
            yield Servers(source_dsn, store_dsn, get("kafka"), get("connect"), get("memorydb"), mark)


@pytest.fixture(scope="module")
def desk(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with open_desk(tmp_path_factory.mktemp("desk"), servers) as opened:
        yield opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def open_window(browser: Browser, desk: Desk) -> Iterator[Callable[..., Page]]:
    """Open a window on the service, signed in as a user unless `user` is None."""
    with ExitStack() as windows:

        def opened(user: str | None = "ada", url: str | None = None, **options: Any) -> Page:
            page = windows.enter_context(window(browser, url or desk.served.url, **options))
            if user is not None:
                sign_in(page, KEYS[user])
            return page

        yield opened


def answer(page: Page, number: int = -1) -> Locator:
    """One answer; the last one."""
    return page.get_by_role("article").nth(number)


def status(page: Page) -> Locator:
    return page.get_by_role("status")


def row_panel(page: Page, name: str) -> Locator:
    return page.get_by_role("dialog", name=name)


def source(turn: Locator, name: str) -> Locator:
    """The button of a cited row in the list of sources."""
    return turn.locator(".sources").get_by_role("button", name=name)


def test_an_answer_marks_itself_stale_when_its_row_changes_or_goes(
    desk: Desk, open_window: Callable[..., Page]
) -> None:
    page, number = open_window(), 950
    desk.insert(number, "north", "Grip of the Tern pruner", "The grip of the Tern pruner is made of ash wood.")
    ask(page, "What is the grip of the Tern pruner made of?")
    expect(answer(page)).to_contain_text("ash wood")
    expect(status(page)).to_contain_text("ash wood")
    answer(page).get_by_role("button", name="Source 1: articles 950").first.click()
    panel = row_panel(page, "articles 950")
    for shown in (
        "The grip of the Tern pruner is made of ash wood.",
        "Committed",
        "after the commit",
        "tenant",
        "north",
    ):
        expect(panel).to_contain_text(shown)
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Source 1: articles 950").first).to_be_focused()

    page.evaluate(_NOTE_THE_MARK)
    desk.say(number, "ash wood", "cork")
    expect(answer(page)).to_contain_text("This answer is stale.")
    expect(answer(page)).to_contain_text("articles 950 has changed")
    expect(status(page)).to_contain_text("An answer is stale: articles 950 has changed")
    source(answer(page), "articles 950").click()
    expect(panel).to_contain_text("This row has changed since the answer.")
    expect(panel).to_contain_text("cork")
    panel.get_by_role("button", name="Close").click()
    assert marked_after(desk, page, number) < 1.0

    answer(page).get_by_role("button", name="Ask again").click()
    expect(page.get_by_role("article")).to_have_count(2)
    expect(answer(page, 1)).to_contain_text("cork")
    expect(page.get_by_label("Your question")).to_be_focused()
    expect(page.locator(".turn.stale")).to_have_count(1)

    desk.execute("DELETE FROM public.articles WHERE id = %s", number)
    expect(answer(page, 1)).to_contain_text("articles 950 is gone")
    expect(answer(page, 0)).to_contain_text("articles 950 is gone")
    source(answer(page, 1), "articles 950").click()
    expect(panel).to_contain_text("articles 950 is gone, or you may not see it.")
    panel.get_by_role("button", name="Close").click()
    answer(page, 1).get_by_role("button", name="Ask again").click()
    expect(page.get_by_role("article")).to_have_count(3)
    expect(answer(page, 2)).not_to_contain_text("cork")


def marked_after(desk: Desk, page: Page, number: int) -> float:
    """Seconds from when a row was searchable until its answer was marked."""
    (document_id,) = {
        citation["document_id"]
        for citation in desk.served.post("/v1/search", {"query": "Tern pruner"}, **signed("ada")).json()["results"]
        if citation["key"] == {"id": number}
    }
    row = desk.served.get(f"/v1/rows/{document_id}", **signed("ada")).json()
    searchable = dt.datetime.fromisoformat(row["searchable_at"]).timestamp()
    return float(page.evaluate("window.markedAt")) / 1000 - searchable


def signed(user: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[user]}"}


def test_the_keyboard_alone_is_enough(open_window: Callable[..., Page]) -> None:
    page = open_window()
    press = page.keyboard.press
    page.keyboard.type("How many days of readings")
    press("Shift+Enter")
    page.keyboard.type("does an H2 hub store while it is offline?")
    assert "\n" in page.get_by_label("Your question").input_value()
    press("Enter")
    expect(answer(page)).to_contain_text("21 days")
    page.reload()
    expect(page.get_by_label("Your question")).to_be_focused()
    tab_to(page, page.get_by_role("link", name="Skip to the question"), "Shift+Tab")
    press("Enter")
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.type(QUESTION)
    press("Enter")
    expect(answer(page)).to_contain_text("21 days")
    tab_to(page, page.get_by_role("button", name=f"Source 1: articles {HUB}").first, "Shift+Tab")
    press("Enter")
    panel = row_panel(page, f"articles {HUB}")
    expect(panel).to_be_visible()
    for _ in range(6):
        press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        )
    press("Escape")
    expect(panel).to_have_count(0)
    expect(page.get_by_role("button", name=f"Source 1: articles {HUB}").first).to_be_focused()
    tab_to(page, page.get_by_role("button", name="Helpful", exact=True), "Tab")
    press("Space")
    expect(page.get_by_role("button", name="Helpful", exact=True)).to_have_attribute("aria-pressed", "true")


def test_conversations_profile_and_comments_need_no_mouse(open_window: Callable[..., Page]) -> None:
    page = open_window("bob")
    press, button = page.keyboard.press, page.get_by_role("button", name="Profile")
    page.keyboard.type(SECRET_QUESTION)
    press("Enter")
    expect(answer(page)).to_contain_text("4417-KESTREL")
    tab_to(page, page.get_by_role("button", name="Not helpful"), "Shift+Tab")
    press("Enter")
    tab_to(page, page.get_by_label("Comment on this answer"), "Tab")
    page.keyboard.type("too terse")
    press("Enter")
    expect(answer(page)).to_contain_text("Kept")
    tab_to(page, button, "Shift+Tab")
    press("Enter")
    expect(page.get_by_role("dialog", name="Your profile").get_by_label("plan")).to_be_visible()
    tab_to(page, page.get_by_label("plan"), "Tab")
    page.keyboard.type("Estate")
    tab_to(page, page.get_by_label("hubs"), "Tab")
    page.keyboard.type("5")
    press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(button).to_be_focused()
    expect(status(page)).to_have_text("Profile saved")
    tab_to(page, page.get_by_role("button", name="New conversation"), "Tab")
    press("Enter")
    expect(page.get_by_role("article")).to_have_count(0)
    session = page.get_by_role("navigation").get_by_role("listitem").filter(has_text=SECRET_QUESTION).first
    tab_to(page, session.get_by_role("button").first, "Tab")
    press("Enter")
    expect(page.get_by_label("Comment on this answer")).to_have_value("too terse")
    tab_to(page, session.get_by_role("button", name=re.compile("^Delete")), "Tab")
    press("Enter")
    press("Enter")
    expect(page.get_by_role("article")).to_have_count(0)
    expect(page.get_by_role("button", name="New conversation")).to_be_focused()
    expect(status(page)).to_have_text("Conversation deleted")


NAMED = {"article", "button", "combobox", "dialog", "figure", "group", "link", "navigation", "textbox"}


def test_a_screen_reader_has_names_and_hears_each_change_once(desk: Desk, open_window: Callable[..., Page]) -> None:
    page, number = open_window(), 955
    name = f"articles {number}"
    desk.insert(number, "north", "Handle of the Wren trowel", "The handle of the Wren trowel is of beech.")
    heard = listen(page)
    ask(page, "What is the handle of the Wren trowel made of?")
    searching, said = heard()
    assert (searching, "beech" in said, said.endswith(("source.", "sources."))) == (
        "Searching",
        True,
        True,
    )
    tree = accessibility_tree(page)
    assert [node for node in tree if node.role in NAMED and not node.name] == []
    assert [node.live for node in tree if node.role == "status"] == ["polite"]
    assert {"main", "banner", "navigation"} <= {node.role for node in tree}
    assert "Your question" in {node.name for node in tree if node.role == "textbox"}
    assert any(node.role == "article" and node.name.endswith("Wren trowel made of?") for node in tree)

    source(answer(page), name).click()
    panel = row_panel(page, name)
    expect(panel).to_contain_text("of beech")
    behind = {node.role for node in accessibility_tree(page)}
    assert "dialog" in behind
    assert not behind & {"article", "textbox", "navigation"}, "the page is not there while its dialog is open"
    desk.say(number, "beech", "birch")
    expect(panel).to_contain_text("This row has changed since the answer.")
    expect(panel.get_by_role("status")).to_contain_text(f"An answer is stale: {name} has changed")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert [text for text in heard()[2:] if "stale" in text] == heard()[2:]
    assert len(heard()) == 3
    marks = {node.name for node in accessibility_tree(page) if node.role == "button" and "Source 1" in node.name}
    assert marks == {f"Source 1: {name}, changed"}


def test_an_answer_that_is_taken_back_is_written_anew(
    desk: Desk, open_window: Callable[..., Page], endpoint: Endpoint, tmp_path: Path
) -> None:
    number, second = 957, " ".join(["It is ground twice"] * 20)
    said = f"The blade of the Siskin saw is 30 centimetres long [1]. {second} [1]."
    desk.insert(number, "north", "Blade of the Siskin saw", "The blade of the Siskin saw is 30 centimetres long.")
    generation = {
        "type": "bedrock", "model": "amazon.nova-lite-v1:0", "unsupported": "keep", **endpoint.service.endpoint,
    }  # fmt: skip
    endpoint.faults(answer=said, piece_ms=150)
    with serving(desk.pipeline.document | {"generation": generation}, tmp_path) as served:
        page = open_window(url=served.url)
        heard = listen(page)
        page.get_by_label("Your question").fill("How long is the blade of the Siskin saw?")
        page.keyboard.press("Enter")
        expect(answer(page)).to_contain_text("30 centimetres")
        desk.say(number, "30 centimetres", "45 centimetres")
        eventually(lambda: desk.searchable("chunk_text LIKE %s", "%45 centimetres%"))
        endpoint.faults(answer=said.replace("30", "45"))
        expect(answer(page)).to_contain_text("45 centimetres")
        expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()
        expect(answer(page)).not_to_contain_text("30 centimetres")
        expect(page.locator(".turn.stale")).to_have_count(0)
        searching, restarted, whole = heard()
        assert (searching, restarted) == ("Searching", "A row changed meanwhile: the answer is written anew")
        assert "45 centimetres" in whole


def test_the_demos_edit_marks_its_answer_and_the_badge_stays_fresh(
    desk: Desk, open_window: Callable[..., Page]
) -> None:
    page = open_window()
    badge = page.locator(".badge")
    ask(page, QUESTIONS[0])
    expect(answer(page)).to_contain_text("21 days")
    expect(badge).to_have_class("badge fresh")
    expect(badge).to_have_text(re.compile(r"^Index: .* behind$"))
    expect(badge).to_have_attribute("title", re.compile(r"^Every commit up to .* is searchable$"))
    try:
        assert edited(desk.dsn, EDITED, "21 days", "34 days")
        expect(answer(page)).to_contain_text(f"articles {EDITED} has changed")
        expect(badge).to_have_class("badge fresh")
        answer(page).get_by_role("button", name="Ask again").click()
        expect(answer(page, 1)).to_contain_text("34 days")
    finally:
        edited(desk.dsn, EDITED, "34 days", "21 days")
        eventually(lambda: desk.searchable("key->>'id' = %s AND chunk_text LIKE '%%21 days%%'", str(EDITED)))


def tab_to(page: Page, wanted: Locator, key: str) -> None:
    for _ in range(60):
        page.keyboard.press(key)
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"{wanted} is not reached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(desk: Desk, open_window: Callable[..., Page], scheme: str) -> None:
    page = open_window(None, color_scheme=scheme, reduced_motion="reduce")
    assert violations(page) == []
    page.get_by_label("Your key or token").fill("no-key")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not known")
    assert violations(page) == []
    sign_in(page, KEYS["ada"])
    assert violations(page) == []
    number = {"light": 960, "dark": 961}[scheme]
    desk.insert(number, "north", f"Colour of the {scheme} crate", f"The {scheme} crate for tomatoes is painted ochre.")
    ask(page, f"Which colour is the {scheme} crate for tomatoes?")
    page.get_by_role("button", name="Not helpful").click()
    expect(answer(page).get_by_label("Comment on this answer")).to_be_visible()
    desk.say(number, "ochre", "teal")
    expect(answer(page)).to_contain_text("This answer is stale.")
    ask(page, SECRET_QUESTION)
    assert violations(page) == []
    source(answer(page, 0), f"articles {number}").click()
    expect(row_panel(page, f"articles {number}")).to_contain_text("teal")
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Profile").click()
    expect(page.get_by_label("plan")).to_be_visible()
    assert violations(page) == []


def test_a_phone_shows_everything_without_scrolling_sideways(open_window: Callable[..., Page]) -> None:
    page = open_window(None, **PHONE)
    assert overflow(page) == 0
    sign_in(page, KEYS["ada"])
    ask(page, QUESTION)
    ask(page, f"{HOSTILE_QUESTION} {'W' * 200}")
    assert overflow(page) == 0
    answer(page, 0).get_by_role("button", name=f"Source 1: articles {HUB}").first.tap()
    expect(row_panel(page, f"articles {HUB}")).to_contain_text("21 days")
    assert overflow(page) == 0
    page.get_by_role("button", name="Close").tap()
    page.get_by_role("button", name="Conversations").tap()
    assert overflow(page, "dialog") == 0
    page.get_by_role("dialog").get_by_role("button", name="New conversation").tap()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("article")).to_have_count(0)
    assert overflow(page) == 0


def overflow(page: Page, part: str = "html") -> int:
    """Pixels that a part of the page is wider than its place."""
    return int(page.locator(part).evaluate("(each) => each.scrollWidth - each.clientWidth"))


def test_script_in_rows_and_questions_never_runs(open_window: Callable[..., Page]) -> None:
    page = open_window()
    ask(page, f"{HOSTILE_QUESTION} {MARKUP}")
    expect(answer(page)).to_contain_text("<script>window.ran='script'</script>")
    ask(page, HOSTILE_QUESTION)
    expect(answer(page)).to_contain_text("vents shut for nine hours")
    source(answer(page), f"articles {HOSTILE}").click()
    panel = row_panel(page, f"articles {HOSTILE}")
    expect(panel).to_contain_text("<script>window.ran='script'</script>")
    expect(panel).to_contain_text("pixel (https://evil.example/pixel.png)")
    assert elements(page, "main, dialog") <= HARMLESS
    page.keyboard.press("Escape")
    page.reload()
    page.get_by_role("navigation").get_by_role("button", name=re.compile("question")).first.click()
    expect(page.get_by_role("article")).to_have_count(2)
    assert elements(page, "main, dialog") <= HARMLESS


HARMLESS = set(
    """article blockquote br button code dd del dialog div dl dt em form h1 h2 h3 h4 hr i input label li ol p pre section
    select option span strong table tbody td textarea th thead tr ul""".split()
)


def elements(page: Page, within: str) -> set[str]:
    """The names of all elements within some."""
    return set(page.locator(within).locator("*").evaluate_all("(found) => found.map((each) => each.localName)"))


def test_a_models_link_image_and_script_are_text(
    desk: Desk, open_window: Callable[..., Page], endpoint: Endpoint, tmp_path: Path
) -> None:
    generation = {
        "type": "bedrock", "model": "amazon.nova-lite-v1:0", "unsupported": "keep", **endpoint.service.endpoint,
    }  # fmt: skip
    endpoint.faults(answer=f"The **vents** stay shut [1]. {MARKUP} [1].\n\n- nine hours [1].")
    with serving(desk.pipeline.document | {"generation": generation}, tmp_path) as served:
        page = open_window(url=served.url)
        ask(page, HOSTILE_QUESTION)
        expect(answer(page).locator("strong").first).to_have_text("vents")
        expect(answer(page)).to_contain_text("<script>window.ran='script'</script>")
        expect(answer(page)).to_contain_text("pixel (https://evil.example/pixel.png)")
        assert elements(page, "main") <= HARMLESS
        endpoint.faults(slow_ms=60_000)
        page.get_by_label("Your question").fill(QUESTION)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Stop").click()
        expect(answer(page)).to_contain_text("You stopped this answer.")
        expect(page.get_by_label("Your question")).to_be_focused()


def test_figures_stand_beside_rows_with_the_time_of_their_load(
    open_window: Callable[..., Page],
    endpoint: Endpoint,
    vectors_dsn: str,
    warehouse_dsn: str,
    aws: Ministack,
    tmp_path: Path,
) -> None:
    desk_facts.indexed_tickets(vectors_dsn)
    desk_facts.loaded_warehouse(warehouse_dsn, aws)
    endpoint.faults(answer="The printer jams on thick paper [1]. 6.75 hours were spent [F1].")
    with desk_facts.reading_user(warehouse_dsn) as login:
        document = {
            "name": "tickets",
            "source": {"type": "files", "format": "kafka", "envelope": "debezium", "path": [str(tmp_path / "none")]},
            "tables": [desk_facts.TICKETS.model_dump(mode="json", exclude_defaults=True)],
            "lake": {"path": str(tmp_path / "lake")},
            "checkpoint": str(tmp_path / "checkpoint"),
            "embedding": json.loads(LOCAL.model_dump_json()),
            "generation": {"type": "bedrock", "model": "amazon.nova-lite-v1:0", **endpoint.service.endpoint},
            "sinks": [{"type": "pgvector", "dsn": vectors_dsn, "table": "kb"}],
            "warehouse": warehouse_config(warehouse_dsn, aws),
            "facts": {**login, "queries": [desk_facts.HOURS]},
        }
        with serving(document, tmp_path / "served") as served:
            page = open_window(None, url=served.url)
            ask(page, "How many hours were spent for the customer whose printer in the lobby jams on thick paper?")
            figure = answer(page).get_by_role("figure")
            for shown in ("F1", "6.75", "from the warehouse", "as of ", "12:00:00"):
                expect(figure).to_contain_text(shown)
            expect(source(answer(page), "tickets 0")).to_be_visible()
            answer(page).get_by_role("button", name="Figure F1: hours").click()
            expect(figure).to_be_focused()
            assert violations(page) == []


def test_a_broken_stream_is_said_and_its_turn_can_be_sent_again(
    desk: Desk,
    open_window: Callable[..., Page],
    endpoint: Endpoint,
    new_proxy: Callable[[int], FaultProxy],
    tmp_path: Path,
) -> None:
    generation = {
        "type": "bedrock",
        "model": "amazon.nova-lite-v1:0",
        "unsupported": "keep",
        **endpoint.service.endpoint,
    }
    endpoint.faults(answer="An H2 stores 21 days of readings [1].", slow_ms=5000)
    with serving(desk.pipeline.document | {"generation": generation}, tmp_path) as served:
        proxy = new_proxy(int(served.url.rpartition(":")[2].strip("/")))
        page = open_window(url=f"http://127.0.0.1:{proxy.port}")
        page.get_by_label("Your question").fill(QUESTION)
        with page.expect_response("**/v1/ask"):  # the browser itself repeats what breaks before
            page.keyboard.press("Enter")
        proxy.drop()
        expect(answer(page)).to_contain_text("The connection broke before the answer was complete.")
        endpoint.faults(answer="An H2 stores 21 days of readings [1].")
        page.get_by_role("button", name="Try again").click()
        expect(answer(page)).to_contain_text("An H2 stores 21 days of readings.")
        expect(page.get_by_role("article")).to_have_count(1)
        expect(page.get_by_role("navigation").locator(".current")).to_contain_text("1 question")


def test_what_changed_while_the_connection_was_away_is_marked_afterwards(
    desk: Desk, open_window: Callable[..., Page], new_proxy: Callable[[int], FaultProxy]
) -> None:
    proxy = new_proxy(int(desk.served.url.rpartition(":")[2].strip("/")))
    page, number = open_window(url=f"http://127.0.0.1:{proxy.port}"), 9_007_199_254_740_993  # no double is this number
    desk.insert(number, "north", "Length of the Heron hose", "The Heron hose is 25 metres long.")
    ask(page, "How long is the Heron hose?")
    expect(answer(page)).to_contain_text("25 metres")
    proxy.refuse()
    expect(page.get_by_text("Not connected, trying again")).to_be_visible()
    desk.say(number, "25 metres", "40 metres")
    eventually(lambda: desk.searchable("chunk_text LIKE %s", "%40 metres%"))
    expect(page.locator(".turn.stale")).to_have_count(0)
    proxy.heal()
    expect(answer(page)).to_contain_text("articles 9007199254740993 has changed")
    expect(page.get_by_text("behind")).to_be_visible()


def test_one_tenants_rows_and_conversations_are_not_the_others(desk: Desk, open_window: Callable[..., Page]) -> None:
    ada, bob = open_window("ada"), open_window("bob")
    ask(bob, SECRET_QUESTION)
    expect(answer(bob)).to_contain_text("4417-KESTREL")
    ask(ada, SECRET_QUESTION)
    expect(ada.get_by_text("4417-KESTREL")).to_have_count(0)
    session = desk.served.get("/v1/sessions", **signed("bob")).json()["sessions"][0]["session"]
    for path in (f"sessions/{session}", f"rows/{document_of(desk, SECRET)}"):
        assert desk.served.get(f"/v1/{path}", **signed("bob")).status_code == 200
        assert desk.served.get(f"/v1/{path}", **signed("ada")).status_code in {403, 404}
    of_ada = desk.served.get("/v1/sessions", **signed("ada")).json()["sessions"]
    assert session not in {conversation["session"] for conversation in of_ada}
    expect(ada.get_by_role("navigation").get_by_role("listitem")).to_have_count(len(of_ada))


def document_of(desk: Desk, number: int) -> str:
    hits = desk.served.post("/v1/search", {"query": "seed vault"}, **signed("bob")).json()["results"]
    return next(str(hit["document_id"]) for hit in hits if hit["key"] == {"id": number})


def test_signing_out_leaves_nothing_on_the_page(open_window: Callable[..., Page]) -> None:
    page = open_window()
    ask(page, QUESTION)
    page.get_by_label("Your question").fill("half a question")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Your key or token")).to_be_focused()
    left = page.evaluate(
        "document.documentElement.outerHTML + JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])"
    )
    assert [word for word in ("21 days", "half a question", "H2", KEYS["ada"], "helpdesk") if word in left] == []
    page.reload()
    expect(page.get_by_label("Your key or token")).to_be_visible()
    sign_in(page, KEYS["bob"])
    expect(page.get_by_role("article")).to_have_count(0)


def test_a_conversation_is_kept_with_its_rating_and_knows_what_changed(
    desk: Desk, open_window: Callable[..., Page]
) -> None:
    page, number = open_window("bob"), 980
    desk.insert(number, "south", "Weight of the Plover barrow", "The Plover barrow weighs 31 kilograms.")
    ask(page, "How heavy is the Plover barrow?")
    expect(answer(page)).to_contain_text("31 kilograms")
    page.get_by_role("button", name="Not helpful").click()
    page.get_by_label("Comment on this answer").fill("too heavy")
    page.get_by_role("button", name="Send").click()
    expect(answer(page)).to_contain_text("Kept")
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_role("article")).to_have_count(0)
    desk.say(number, "31 kilograms", "29 kilograms")
    eventually(lambda: desk.searchable("chunk_text LIKE %s", "%29 kilograms%"))
    page.reload()
    page.get_by_role("navigation").get_by_role("button", name=re.compile("1 question$")).first.click()
    expect(answer(page)).to_contain_text("31 kilograms")
    expect(answer(page)).to_contain_text("articles 980 has changed")
    expect(page.get_by_role("button", name="Not helpful")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Comment on this answer")).to_have_value("too heavy")
    assert overflow(page, "nav") == 0
    page.get_by_role("button", name=re.compile("^Delete the conversation: .*barrow")).first.click()
    page.get_by_role("button", name=re.compile("^Really delete")).click()
    expect(page.get_by_role("article")).to_have_count(0)
    expect(status(page)).to_have_text("Conversation deleted")


def test_the_profile_has_the_declared_fields_and_says_who_was_first(open_window: Callable[..., Page]) -> None:
    page, other = open_window(), open_window()
    for tab in (page, other):
        tab.get_by_role("button", name="Profile").click()
        expect(tab.get_by_label("plan")).to_be_visible()
    page.get_by_label("plan").select_option("Estate")
    page.get_by_label("hubs").fill("41")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_be_visible()  # the browser says that 40 is the most
    page.get_by_label("hubs").fill("7")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Profile")).to_be_focused()
    other.get_by_label("hubs").fill("9")
    other.get_by_role("button", name="Save").click()
    expect(other.get_by_role("alert")).to_be_visible()
    page.get_by_role("button", name="Profile").click()
    expect(page.get_by_label("hubs")).to_have_value("7")


def test_what_has_no_answer_and_what_fails_is_said_plainly(
    memorydb: MemoryDB, open_window: Callable[..., Page]
) -> None:
    page = open_window()
    ask(page, "Who won the chess olympiad of 1972?")
    expect(answer(page)).to_contain_text("Nothing relevant was found")
    expect(answer(page).locator(".sources")).to_have_count(0)
    memorydb.stop()
    try:
        ask(page, QUESTION)
        expect(answer(page).locator(".note.bad")).to_be_visible()
        expect(answer(page)).not_to_contain_text("21 days")
    finally:
        memorydb.start()
    answer(page).get_by_role("button", name="Ask again").click()
    expect(answer(page)).to_contain_text("21 days")


_FORBIDDEN = """() => {
  const element = (name, change) => document.body.append(change(document.createElement(name)));
  const tries = {
    html: () => { document.body.insertAdjacentHTML('beforeend', '<b>x</b>'); },
    script: () => element('script', (each) => Object.assign(each, {textContent: 'window.ran = 1'})),
    handler: () => document.body.setAttribute('onclick', 'window.ran = 1'),
    policy: () => trustedTypes.createPolicy('other', {}),
  };
  const done = ([, attempt]) => { try { attempt(); return true; } catch { return false; } };
  return Object.entries(tries).filter(done).map(([name]) => name);
}"""


def test_the_browser_itself_refuses_what_the_page_never_does(desk: Desk, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(desk.served.url)
    assert page.evaluate(_FORBIDDEN) == []
    assert page.evaluate("fetch('https://evil.example/').then(() => 'sent', () => 'refused')") == "refused"
    assert page.evaluate("window.ran ?? null") is None
    page.close()
