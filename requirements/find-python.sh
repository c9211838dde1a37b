#!/usr/bin/env bash
# Prints the path of a Python of the version named that really runs (a version manager's shim may not), or says how to get one.
set -u
version=$1

candidates=("${PYTHON:-}" "python$version")
shopt -s nullglob
candidates+=("${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version"*/bin/"python$version")
candidates+=("$HOME"/.local/share/uv/python/cpython-"$version"*/bin/"python$version")
candidates+=("/usr/local/bin/python$version" "/usr/bin/python$version" "/opt/homebrew/bin/python$version" python3 python)

for candidate in "${candidates[@]}"; do
  [ -n "$candidate" ] || continue
  found=$("$candidate" -c \
    'import sys, ensurepip, venv; assert "%d.%d" % sys.version_info[:2] == sys.argv[1]; print(sys.executable)' "$version" 2>/dev/null)
  [ -n "$found" ] && { echo "$found"; exit 0; }
done

cat >&2 <<EOF
No working Python $version found, and the pinned packages are for it (3.13 is what AWS Glue 6.0 runs).
Install one and run make again, for instance:
    pyenv install $version        or    uv python install $version        or    apt-get install python$version python$version-venv
or name one that you have:    make setup PYTHON=/path/to/python$version
EOF
exit 1
