"""`make screenshots`: pictures of the page in docs/pictures/, taken from the demo by the system's Chromium."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, ViewportSize, sync_playwright

from local_stack.demo import edit
from local_stack.demo.answers import EDITED, QUESTIONS, Demo

_ROOT = Path(__file__).resolve().parents[1]
PICTURES = _ROOT / "docs/pictures"
_WINDOW: ViewportSize = {"width": 1100, "height": 720}
_PHONE: ViewportSize = {"width": 390, "height": 780}
_EDITS = {"light": ("21 days", "34 days"), "dark": ("34 days", "55 days"), "phone": ("55 days", "60 days")}
"""Words of the edited article before and after each picture's own edit."""


def main() -> None:
    """Run the demo up to its questions, serve it, and take the pictures."""
    chromium = subprocess.run([_ROOT / "requirements/find-chromium.sh"], stdout=subprocess.PIPE, text=True, check=True)
    demo = Demo(Path.cwd())
    try:
        demo.start_parts()
        rows = demo.seed()
        demo.capture(rows)
        demo.wait_loaded(sum(rows.values()))
        demo.calibrate()
        demo.create_memory()
        _take_pictures(demo.pipeline.serve(), chromium.stdout.strip())
    finally:
        demo.stack.down()


def _take_pictures(address: str, chromium: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        for name, (old, new) in _EDITS.items():
            phone = name == "phone"
            context = browser.new_context(
                viewport=_PHONE if phone else _WINDOW, color_scheme="dark" if name == "dark" else "light",
                locale="en-GB", reduced_motion="reduce",
            )  # fmt: skip
            page = context.new_page()
            page.goto(address)
            _ask(page, QUESTIONS[0])
            _ask(page, QUESTIONS[1])
            if name == "dark":
                _save(page, name)
            elif name == "light":
                page.locator(".sources button").first.click()
                page.locator("dialog .chunk").first.wait_for()
                _save(page, "row")
                page.keyboard.press("Escape")
            if edit.main([str(EDITED), old, new]):
                raise RuntimeError("the article was not edited")
            page.locator(".turn.stale").wait_for()
            page.locator(".turn.stale").scroll_into_view_if_needed()
            if name != "dark":
                _save(page, "stale" if name == "light" else name)
            context.close()
        browser.close()


def _ask(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop").wait_for(state="detached")
    page.locator(".turn").last.locator(".sources").wait_for()


def _save(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"page-{name}.png", animations="disabled")
    sys.stdout.write(f"picture   docs/pictures/page-{name}.png\n")


if __name__ == "__main__":
    main()
