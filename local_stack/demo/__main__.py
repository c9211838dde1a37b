"""`make demo`: a committed row becomes a cited answer. STORES=all: it reaches five stores, and one of them is killed.

KEEP=1 leaves everything running.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from local_stack.demo.answers import Demo, DemoError, console
from local_stack.demo.stores import StoresDemo
from schemas.errors import PipelineError


def main(environment: Callable[[str], str | None] = os.environ.get) -> int:
    """Run the chosen demo; returns 0 when every step succeeded."""
    stores = environment("STORES") or "pgvector"
    demos: dict[str, Callable[[Path], Demo]] = {"pgvector": Demo, "all": StoresDemo}
    if stores not in demos:
        console.print(f"STORES={stores}: there is no such demo; leave it out, or say STORES=all", markup=False)
        return 2
    demo, keep = demos[stores](Path.cwd()), environment("KEEP") == "1"
    try:
        demo.run()
    except (DemoError, PipelineError) as error:
        console.print(f"\nThe demo stopped: {error}", markup=False)
        keep = False
        return 1
    except KeyboardInterrupt:
        keep = False
        return 130
    finally:
        if keep:
            demo.keep()
        else:
            demo.stack.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
