#!/usr/bin/env bash
# For a machine with a GPU, torch, papermill, ipykernel, pytest and hypothesis, but perhaps no network and no .venv:
# the tests that take a device, the full 400-epoch notebook on CUDA with its timing, and the benchmarks, 64 replicas among them.
#
#   OUT=folder PYTHON=python3 bash benchmarks/gpu.sh
#
# In $OUT (runs/gpu when unset): tests.log, 08_full_run.ipynb (executed), run.tar.gz (the run directory without its
# checkpoint: unpack into results/reference to make it the reference run), timing.json, bench.json (copy it to
# benchmarks/results/cuda.json to have it on the performance page).
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-runs/gpu}
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$PYTHON" -c 'import sys, torch
if not torch.cuda.is_available(): sys.exit("gpu.sh: torch sees no CUDA device here; this script is for a machine with one")
print(torch.cuda.get_device_name(), "torch", torch.__version__)'

"$PYTHON" -m pytest -q -W default -p no:cacheprovider tests/test_device.py tests/training/test_ensemble.py 2>&1 | tee "$OUT/tests.log" \
  && failed=0 || failed=1
"$PYTHON" -m papermill notebooks/08_full_run.ipynb "$OUT/08_full_run.ipynb" --cwd notebooks --no-progress-bar \
  --log-output -p device cuda -p run_dir "$work/run"
cp "$work/run/timing.json" "$OUT/timing.json"
tar -C "$work/run" --exclude=checkpoint.safetensors --exclude=.lock -czf "$OUT/run.tar.gz" .
cat "$OUT/timing.json"
"$PYTHON" benchmarks/bench.py --device cuda --rounds 3 --output "$OUT/bench.json" | tee "$OUT/bench.log"
exit $failed
