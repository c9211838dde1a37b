#!/usr/bin/env bash
# pom/verify.sh LIST FOLDER: a folder must hold what a list of SHA-256 names, no more and no less, before anything of it is
# unpacked or run.
set -euo pipefail
list=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
sha256=$(command -v sha256sum || echo "shasum -a 256")
cd "$2"
if ! cmp -s <(cut -c67- "$list") <(LC_ALL=C ls) || ! $sha256 --check --quiet "$list" >&2; then
  echo "$1: what was downloaded is not what is listed there. Either a file was altered on its way, or a version was changed" \
    "without \`make lock-jars\`. Nothing of it is used; it is left in $PWD to be looked at." >&2
  exit 1
fi
