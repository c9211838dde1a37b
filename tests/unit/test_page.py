"""The page's files: how they are served, that they are whole, and what its modules decide without a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from local_stack.cache import node_modules
from service.page import CONTENT_SECURITY_POLICY, files, routes
from tools import vendored_modules

ROOT = Path(__file__).resolve().parents[2]
IMPORT = re.compile(
    r"""^\s*(?:import|export)\b[^;]*?from\s*["']([^"']+)["']|^\s*import\s*["']([^"']+)["']""", re.MULTILINE
)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=routes()))


def test_vendored_modules_equal_the_pinned_packages() -> None:
    copies = vendored_modules.copies(node_modules())
    present = {
        path.relative_to(vendored_modules.VENDOR) for path in vendored_modules.VENDOR.rglob("*") if path.is_file()
    }
    assert present == {*copies, Path(vendored_modules.VERSIONS)}
    differing = [
        copy
        for copy, original in copies.items()
        if (vendored_modules.VENDOR / copy).read_bytes() != original.read_bytes()
    ]
    assert differing == [], "make vendored"
    assert json.loads((vendored_modules.VENDOR / vendored_modules.VERSIONS).read_text()) == vendored_modules.versions()


def test_each_vendored_package_has_its_licence_beside_it() -> None:
    for package in vendored_modules.FILES:
        assert len((vendored_modules.VENDOR / package / "LICENSE").read_text()) > 500


def test_decisions_of_the_page_hold() -> None:
    tests = sorted((ROOT / "tests/unit/page").glob("*.test.mjs"))
    assert len(tests) >= 3
    done = subprocess.run(["node", "--test", *tests], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_modules_of_the_page_are_small_and_their_lines_short() -> None:
    own = {name: file.content.decode().splitlines() for name, file in files().items() if not name.startswith("vendor/")}
    modules = {name: lines for name, lines in own.items() if name.endswith(".js")}
    assert len(modules) > 12
    assert [(name, len(lines)) for name, lines in modules.items() if len(lines) > 400] == []
    assert [line for lines in modules.values() for line in lines if len(line) > 140] == []


def test_without_a_browser_setup_says_in_one_line_how_to_get_one(tmp_path: Path) -> None:
    for name in ("bash", "id"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [tmp_path / "bash", ROOT / "requirements/find-chromium.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"No Chromium, .* apt-get install chromium.*\n", done.stderr)


def test_every_module_that_is_imported_is_served() -> None:
    served = files()
    checked = 0
    for name, file in served.items():
        if not name.endswith((".js", ".mjs")):
            continue
        for imported in IMPORT.findall(file.content.decode()):
            module = imported[0] or imported[1]
            assert module.startswith("."), (name, module)
            place = PurePosixPath(name).parent / module
            assert normal(place) in served, (name, module)
            checked += 1
    assert checked > 20


def normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def test_the_document_has_neither_script_nor_style_of_its_own(client: TestClient) -> None:
    document = client.get("/").text
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", document) == []
    addresses = re.findall(r'(?:src|href)="([^"]+)"', document)
    assert len(addresses) >= 4
    assert [address for address in addresses if client.get(f"/{address}").status_code != 200] == []


@pytest.mark.parametrize(
    "path", ["/", "/page/main.js", "/page/page.css", "/page/vendor/marked/LICENSE", "/page/none.js"]
)
def test_every_answer_forbids_foreign_and_inline_scripts(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_modules_and_styles_have_the_types_that_browsers_ask_for(client: TestClient) -> None:
    types = {
        name: client.get(f"/page/{name}").headers["Content-Type"]
        for name in ("main.js", "vendor/preact/preact.mjs", "page.css", "icon.svg")
    }
    assert list(types.values()) == ["text/javascript; charset=utf-8"] * 2 + ["text/css; charset=utf-8", "image/svg+xml"]


@pytest.mark.parametrize(
    "path", ["__init__.py", "../config.py", "..%2fconfig.py", "%2e%2e/config.py", "//etc/passwd", "views", "views/", ""]
)
def test_nothing_but_the_pages_files_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"/page/{path}").status_code == 404


def test_an_unchanged_file_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/page/page.css")
    again = client.get("/page/page.css", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/page/page.css", headers={"If-None-Match": '"other"'}).status_code == 200
