#!/usr/bin/env bash
# Puts promtool into build/: that of the machine, or Debian's, unpacked from the package `prometheus` without installing it
# (the package would start a server). Needs apt-get and dpkg; asks for no rights.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p build
if [ -x build/promtool ]; then exit 0; fi
if command -v promtool >/dev/null; then
  ln -sf "$(command -v promtool)" build/promtool
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download --quiet prometheus || { apt-get update --quiet && apt-get download --quiet prometheus; } # no lists yet
dpkg -x prometheus_*.deb unpacked
cd "$OLDPWD"
cp "$folder/unpacked/usr/bin/promtool" build/promtool
