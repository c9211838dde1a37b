"""`make vendored`: the page's modules, copied from the npm packages that requirements/npm pins, each with its licence.

The page has no build step: a browser loads these files as they are, so a copy equals its package's file byte for byte.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from local_stack.cache import node_modules

_ROOT = Path(__file__).resolve().parents[1]
VENDOR = _ROOT / "service/page/vendor"
VERSIONS = "versions.json"
"""The file beside the copies that names each package with its version and licence."""
FILES = {
    "dompurify": ("dist/purify.es.mjs", "LICENSE"),
    "eventsource-parser": ("dist/parse.js", "dist/errors.js", "LICENSE"),
    "htm": ("dist/htm.module.js", "LICENSE"),
    "marked": ("lib/marked.esm.js", "LICENSE"),
    "preact": ("dist/preact.mjs", "LICENSE"),
}
"""The files of each package that the page loads, and its licence."""


def copies(packages: Path) -> dict[Path, Path]:
    """Each copy's place in the page's folder, and the file of a `node_modules` folder that it equals."""
    return {
        Path(package) / Path(file).name: packages / package / file for package, files in FILES.items() for file in files
    }


def versions() -> dict[str, dict[str, str]]:
    """Version and licence of each package, as the lock file pins them."""
    locked = json.loads((_ROOT / "requirements/npm/package-lock.json").read_text())["packages"]
    return {name: {key: locked[f"node_modules/{name}"][key] for key in ("version", "license")} for name in FILES}


def main() -> None:
    """Replace the copies by those of the pinned packages."""
    shutil.rmtree(VENDOR, ignore_errors=True)
    for copy, original in copies(node_modules()).items():
        place = VENDOR / copy
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, place)
    (VENDOR / VERSIONS).write_text(json.dumps(versions(), indent=2) + "\n")


if __name__ == "__main__":
    main()
