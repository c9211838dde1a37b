#!/usr/bin/env bash
# Prints the path of a Python 3.13 that really runs (a version manager's shim may not), or says how to get one.
set -u

candidates=("${PYTHON:-}" python3.13)
shopt -s nullglob
candidates+=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3.13)
candidates+=("$HOME"/.local/share/uv/python/cpython-3.13*/bin/python3.13)
candidates+=(/usr/local/bin/python3.13 /usr/bin/python3.13 /opt/homebrew/bin/python3.13 python3 python)

for candidate in "${candidates[@]}"; do
  [ -n "$candidate" ] || continue
  found=$("$candidate" -c 'import sys, ensurepip, venv; assert sys.version_info[:2] == (3, 13); print(sys.executable)' 2>/dev/null)
  [ -n "$found" ] && { echo "$found"; exit 0; }
done

cat >&2 <<'EOF'
No working Python 3.13 found: AWS Glue 6.0 runs 3.13, and the pinned wheels are for it.
Install one and run make again, for instance:
    pyenv install 3.13          or    uv python install 3.13          or    apt-get install python3.13 python3.13-venv
or name one that you have:    make setup PYTHON=/path/to/python3.13
EOF
exit 1
