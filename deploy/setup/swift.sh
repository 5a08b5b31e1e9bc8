#!/usr/bin/env bash
# Installs OpenStack Swift, whose S3 API the tests of the object storage run against, into build/swift. Without it they skip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ -x build/swift/bin/swift-proxy-server ] && exit 0
python3 -m venv build/swift
build/swift/bin/python -m pip install --quiet "swift==2.38.3"
