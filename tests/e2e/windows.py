"""Windows of a real Chromium, and what may never happen in one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Dialog, Page, expect, sync_playwright

from local_stack.cache import node_modules
from tests.waiting import WAIT_SECONDS

ROOT = Path(__file__).resolve().parents[2]
AXE = node_modules() / "axe-core" / "axe.min.js"
_LISTEN = """addEventListener('securitypolicyviolation', (event) =>
  console.info('policy:', event.effectiveDirective, event.blockedURI, event.sourceFile, event.sample))"""
SERIOUS = {"serious", "critical"}

expect.set_options(timeout=WAIT_SECONDS * 1000)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, without a window of its own."""
    located = subprocess.run([ROOT / "requirements/find-chromium.sh"], capture_output=True, text=True, check=False)
    assert located.returncode == 0, located.stderr
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=located.stdout.strip())
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page in a context of its own; fails the test if a script of a text ran, or anything was asked of another host."""
    context = browser.new_context(
        **{"viewport": {"width": 1100, "height": 800}, "locale": "en-GB", "timezone_id": "UTC", **options}
    )
    context.set_default_timeout(WAIT_SECONDS * 1000)
    context.add_init_script(_LISTEN)
    page, wrong = context.new_page(), list[str]()

    def dismissed(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    page.on("dialog", dismissed)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("request", lambda request: wrong.extend([] if request.url.startswith(url) else [f"request: {request.url}"]))
    page.on("popup", lambda popup: wrong.append(f"popup: {popup.url}"))
    page.on("console", lambda said: wrong.extend([said.text] if said.text.startswith("policy:") else []))
    page.goto(url)
    try:
        yield page
        ran = page.evaluate("window.ran ?? null")
        assert (wrong, ran) == ([], None)
    finally:
        context.close()


def sign_in(page: Page, key: str) -> None:
    page.get_by_label("Your key or token").fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Your question")).to_be_focused()


def ask(page: Page, question: str) -> None:
    """Ask, and wait until the answer is complete."""
    answer_count = page.get_by_role("article").count()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_have_count(answer_count + 1)
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_visible()


_HEAR = """() => {
  window.heard = [];
  const said = new WeakMap();
  const hear = () => {
    const there = document.querySelector('dialog:modal') ?? document;
    for (const region of document.querySelectorAll('[role=status]')) {
      const text = region.textContent.trim();
      if (text && text !== said.get(region) && there.contains(region)) window.heard.push(text);
      said.set(region, text);
    }
  };
  hear();
  window.heard = [];
  new MutationObserver(hear).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


def listen(page: Page) -> Callable[[], list[str]]:
    """What a screen reader is given to say from now on: changes of live regions, but for what is behind a modal dialog."""
    page.evaluate(_HEAR)
    return lambda: list(page.evaluate("window.heard"))


class Accessible(NamedTuple):
    """A node of Chromium's own accessibility tree."""

    role: str
    name: str
    live: str


def accessibility_tree(page: Page) -> list[Accessible]:
    """What Chromium gives to a screen reader, in the order of the page."""
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [
        Accessible(
            node["role"]["value"],
            node.get("name", {}).get("value", ""),
            next((p["value"]["value"] for p in node.get("properties", ()) if p["name"] == "live"), ""),
        )
        for node in nodes
        if not node["ignored"]
    ]


def violations(page: Page) -> list[str]:
    """What axe-core finds to be serious on the page as it is."""
    page.evaluate(AXE.read_text())
    axe_results = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {node['html']} {node['failureSummary']}"
        for violation in axe_results["violations"]
        if violation["impact"] in SERIOUS
        for node in violation["nodes"]
    ]
