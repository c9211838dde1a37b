"""Real passages of English and their MiniLM vectors: paragraphs of docstrings.

They come from Python's standard library and from the packages that `requirements/` pins (all of open licences), so there is
nothing to download. Vectors are kept in the cache in parts, so that a second run, or one after a kill, goes on from there.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import batched
from pathlib import Path

import numpy as np

from embeddings.onnx.config import LocalEmbeddingConfig
from embeddings.onnx.embedder import LocalEmbedder
from local_stack.cache import cache_dir
from local_stack.models.minilm import MAX_TOKENS, minilm_folder
from transforms.documents.planning import digest

CHARACTERS = range(120, 400)
LEAST_WORDS = 16
DIMENSIONS = 384
_PART = 500


def embedder() -> LocalEmbedder:
    """The real model, in this process."""
    return LocalEmbedder(
        LocalEmbeddingConfig(
            type="local", path=minilm_folder(), model="all-MiniLM-L6-v2", dimensions=DIMENSIONS, max_tokens=MAX_TOKENS
        )
    )


def passages(number: int) -> list[str]:
    """Distinct passages in the order of their hashes; the same for the same versions of Python and packages."""
    kept = cache_dir() / "passages" / f"{_packages()}.txt"
    if not kept.exists():
        passages = sorted(set(_all()), key=digest)
        kept.parent.mkdir(parents=True, exist_ok=True)
        scratch = kept.with_suffix(f".{os.getpid()}")
        scratch.write_text("\n".join(passages))
        scratch.rename(kept)
    passages = kept.read_text().splitlines()
    if len(passages) < number:
        raise AssertionError(f"only {len(passages)} passages on this machine, not {number}")
    return passages[:number]


def embedded(texts: Sequence[str], on_done: Callable[[int], None]) -> np.ndarray:
    """A vector for each text, from the cache or by one process a core; `on_done` is called with each number that is done."""
    model = hashlib.sha256(embedder().fingerprint.encode()).hexdigest()[:12]
    folder = cache_dir() / "passages" / f"vectors-{model}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(batched(texts, _PART))
    places = [folder / f"{digest(chr(10).join(part))[:24]}.npy" for part in parts]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for part, _ in zip(parts, pool.map(_keep, parts, places), strict=True):
            on_done(len(part))
    return np.concatenate([np.load(place) for place in places])


def _keep(texts: Sequence[str], place: Path) -> None:
    if not place.exists():
        scratch = place.with_suffix(f".{os.getpid()}.npy")
        np.save(scratch, np.stack([np.asarray(vector, "f4") for vector in embedder().embed_documents(texts)]))
        scratch.rename(place)


def _packages() -> str:
    """The versions of what `_all` reads: the interpreter and the installed packages."""
    installed = sorted(path.name for path in Path(sysconfig.get_path("purelib")).glob("*.dist-info"))
    return hashlib.sha256("\n".join([sys.version, *installed]).encode()).hexdigest()[:12]


def _all() -> Iterator[str]:
    for name, left_out in (("stdlib", {"site-packages", "test", "tests"}), ("purelib", {"test", "tests"})):
        folder = Path(sysconfig.get_path(name))
        for path in sorted(folder.rglob("*.py")):
            if left_out.isdisjoint(path.relative_to(folder).parts):
                yield from _of_module(path)


def _of_module(path: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, RecursionError):
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
                text = " ".join(paragraph.split())
                if len(text) in CHARACTERS and len(re.findall(r"[A-Za-z]{3,}", text)) >= LEAST_WORDS:
                    yield text
