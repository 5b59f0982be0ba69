#!/bin/sh
# Installs PyTorch for the Python given: `install_torch.sh PYTHON cpu|cuda`.
#
# A plain `pip install torch` on Linux brings several GB of CUDA libraries. For `cpu` a wheel that lies in one of pip's own
# find-links folders is taken first (machines without the internet), then PyTorch's CPU index.
set -eu
python=$1 kind=$2 version=2.13.0

if "$python" -c "import torch, sys; sys.exit(torch.__version__.split('+')[0] != '$version')" 2>/dev/null; then
    exit 0
fi
case $kind in
cpu)
    "$python" -m pip install --quiet --no-index --no-deps "torch==$version" 2>/dev/null ||
        "$python" -m pip install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu "torch==$version"
    "$python" -m pip install --quiet "torch==$version" # what it depends on
    ;;
cuda) "$python" -m pip install --quiet "torch==$version" ;;
*)
    echo "install_torch.sh: expected cpu or cuda, got '$kind'" >&2
    exit 2
    ;;
esac
