#!/usr/bin/env bash
# requirements/fetch-mysql.sh FOLDER: MySQL's server as Debian sid has it now, with its libraries, unpacked into a folder. Nothing is
# installed: it runs by its own loader, as its libc is newer than most machines'. apt takes it from the mirror that this machine's own
# sources name and verifies it by Debian's keys. Sid keeps one version of a package, so none is pinned: `packages` says what came.
set -euo pipefail
folder=$1
keys=/usr/share/keyrings/debian-archive-keyring.gpg
fail() { echo "No MySQL server: $1." >&2; exit 1; }

command -v apt-get >/dev/null && [ -r "$keys" ] || fail "it comes from Debian by apt, and this machine has no apt with Debian's keys"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Label: Debian' | sort -u | sed -n 1p)
[ -n "$mirror" ] || fail "apt's sources name no mirror of Debian whose lists are here (apt-get update)"

apt=$folder/apt
mkdir -p "$apt"/{lists,archives}/partial
printf '%s\n' 'Types: deb' "URIs: $mirror" 'Suites: sid' 'Components: main' "Architectures: $(dpkg --print-architecture)" \
  'Targets: Packages' "Signed-By: $keys" >"$apt/sid.sources"
# Its scripts alone need Perl.
printf '%s\n' 'Package: perl' 'Status: install ok installed' 'Version: 999' 'Architecture: all' 'Multi-Arch: allowed' \
  'Maintainer: nobody' 'Description: stands for what is not needed' >"$apt/status"
options=(-qq -o "Dir::State=$apt" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt" -o "Dir::Etc::sourcelist=$apt/sid.sources"
  -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null
  -o APT::Install-Recommends=false -o APT::Sandbox::User="$(id -un)")
apt-get "${options[@]}" update >&2 || fail "the mirror of Debian does not answer, or what it gave is not Debian's"
apt-cache "${options[@]}" show mysql-server-core >/dev/null 2>&1 || fail "the mirror's sid has no mysql-server-core any more"
apt-get "${options[@]}" install --download-only --yes mysql-server-core >&2 \
  || fail "the mirror's sid has no set of libraries for mysql-server-core today"
for package in "$apt"/archives/*.deb; do dpkg-deb --extract "$package" "$folder"; done
(cd "$apt/archives" && ls -- *.deb) >"$folder/packages"
rm -r "$apt" && rm -rf "$folder"/usr/share/{doc,man,locale,lintian}
