#!/usr/bin/env bash
# Runs a model on this machine's GPUs: discovery, placement, memory, a crash, and unloading. Needs an NVIDIA GPU with its
# driver, and no library of CUDA: the model calls the driver itself. Takes less than five minutes, set-up included.
#
#   scripts/test-gpu.sh [PYTEST OPTION]...
#
# IDUNNO_TEST_PYTHON names a Python with the model server and pytest; otherwise .venv is made.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

fail() {
    echo "test-gpu.sh: $*" >&2
    exit 1
}

case "${1:-}" in
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 0 ;;
esac
command -v nvidia-smi >/dev/null || fail "there is no GPU to test: nvidia-smi is not on the PATH"
listed="$(timeout 60 nvidia-smi -L 2>&1)" || fail "there is no GPU to test: nvidia-smi says '${listed##*$'\n'}'"
[[ "$listed" == *"GPU "* ]] || fail "there is no GPU to test: nvidia-smi lists none"
echo "$listed"

python="${IDUNNO_TEST_PYTHON:-$root/.venv/bin/python}"
if [[ -z "${IDUNNO_TEST_PYTHON:-}" ]]; then
    "$root/scripts/setup_python.sh"
fi
cd "$root/python_model_server"
export IDUNNO_TEST_GPU=1
exec timeout 240 "$python" -m pytest -p no:cacheprovider tests/test_real_gpu.py "$@"
