#!/usr/bin/env bash
# Prints the path of a Chromium, for tests of the page; installs Debian's where there is none and we may, else says how to get one.
set -u

find_one() {
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" && return
  done
  return 1
}

find_one && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "browser   Debian's chromium, for tests of the page" >&2
  install() {
    DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y --no-install-recommends install chromium
  }
  { install || { apt-get -qq update && install; }; } >/dev/null 2>&1
  find_one && exit 0
fi
echo "No Chromium, which tests of the page need: apt-get install chromium, and run make again." >&2
exit 1
