#!/usr/bin/env bash
# Installs PostgreSQL's programs from Debian for the tests, as root; a cluster of the system is neither made nor started.
# Without root it says what is missing and succeeds: the tests of PostgreSQL then skip, in CI they fail.
set -euo pipefail
if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "PostgreSQL is not here and cannot be installed without root and apt-get" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
install_quietly() { apt-get install --quiet --yes --no-install-recommends "$@"; }
install_quietly postgresql-common || { apt-get update --quiet && install_quietly postgresql-common; } # no lists yet
echo "create_main_cluster = false" >>/etc/postgresql-common/createcluster.conf
install_quietly postgresql
