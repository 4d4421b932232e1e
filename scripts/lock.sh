#!/bin/sh
# Pins every dependency with hashes; no index address is written.
set -eu
cd "$(dirname "$0")/.."
compile() {
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-annotate --no-strip-extras --no-sources \
        --no-emit-package pvemcp-client --no-emit-package pvemcp-formats \
        --no-emit-package pvemcp-server --no-emit-package pvemcp-bridge "$@"
}
compile requirements.in -o constraints.txt
compile requirements-dev.in -c constraints.txt -o constraints-dev.txt
compile requirements-bridge.in -c constraints-dev.txt -o constraints-bridge.txt
compile requirements-bridge-tests.in -c constraints-dev.txt -o constraints-bridge-tests.txt
compile requirements-release.in -c constraints-dev.txt -o constraints-release.txt
