#!/bin/sh
# Makes the server's environment for the image and the Debian package: the locked packages, compiled,
# without pip and what only builds packages.
#   scripts/make_environment.sh FOLDER [PREFIX]    made in FOLDER, to run at PREFIX (default: FOLDER)
set -eu
cd "$(dirname "$0")/.."
folder=$1
prefix=${2:-$1}
python=${PYTHON:-python3}
export HATCH_BUILD_NO_HOOKS=true # the hook of packages/server would name this folder in the metadata

"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
    --only-binary :all: --require-hashes -r constraints.txt
"$folder/bin/python" -m pip install --quiet --no-compile --no-deps --no-build-isolation \
    ./packages/proxmox_client ./packages/formats './packages/server[charts,demo,oidc,otel]' ./packages/bridge
"$folder/bin/python" -m pip uninstall --quiet --yes --root-user-action ignore \
    editables hatchling pathspec pluggy trove-classifiers setuptools pip

# What is read by no program that runs: tests of the packages, sources of their C code, stubs
site=$(echo "$folder"/lib/python3*/site-packages)
# and pip's notes of the folders that our packages were built in
find "$site" -type f -path '*.dist-info/direct_url.json' -delete
find "$site" -type d -name tests -prune -exec rm -r {} +
find "$site" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.c' -o -name '*.h' \
    -o -name '*.pyi' \) -delete
find "$site" -type f -name '*.so' -exec strip --strip-unneeded {} + 2>/dev/null || true
rm -f "$folder"/bin/activate* "$folder"/bin/Activate.ps1 "$folder"/bin/pip*

# Its files never change: no time of a source is compared when it starts
"$folder/bin/python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$folder" -p "$prefix" \
    "$site"
for script in "$folder"/bin/*; do
    test -L "$script" || sed -i "1s|^#!$folder/|#!$prefix/|" "$script"
done
sed -i "/^command = /d" "$folder/pyvenv.cfg"
