#!/bin/sh
# Installs the Debian packages that the tests use. Does nothing where they are there already, or where it may not.
set -eu

missing=
for package in g++ gcc libc6-dev libgrpc++-dev libprotobuf-dev mosquitto pkg-config protobuf-compiler protobuf-compiler-grpc systemd; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"

if [ -z "$missing" ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    exit 0
fi
echo "installing$missing ..."
export DEBIAN_FRONTEND=noninteractive
# Without these packages some tests skip and say why, so a machine that cannot reach an archive may go on.
# shellcheck disable=SC2086 # one word per package
{ apt-get -qq update && apt-get -qq install --no-install-recommends $missing; } </dev/null >/dev/null ||
    echo "could not install$missing: tests that need them will be skipped" >&2
