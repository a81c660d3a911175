#!/usr/bin/env bash
# Run the GPU tests and the GPU benchmarks; every part ends within ten minutes.
#
#   benchmarks/gpu.sh RESULTS [PART ...]        PART: tests headline infonce small matching cce steps1 steps2 steps3 (default: all)
#
# RESULTS receives one log per part and one JSON file per benchmark run. On a bare machine, WHEELS=FOLDER names a folder of wheels that
# are installed beside the machine's own packages, without a network, and left out of the repository.
set -uo pipefail

results=$(realpath -m "${1:?usage: benchmarks/gpu.sh RESULTS [PART ...]}")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
mkdir -p "$results"
export PYTHONUNBUFFERED=1

if [[ -n ${WHEELS:-} ]]; then
  site=${SITE:-/tmp/alignx-benchmark-packages}
  if [[ ! -d $site ]]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl || exit
  fi
  export PYTHONPATH=$site:$PWD:$PWD/kernels
fi

bench() { # name, seconds until no new case starts, pytest's arguments
  local name=$1 budget=$2
  shift 2
  timeout --kill-after=10 590 python3 -m pytest benchmarks -q --budget "$budget" --results "$results" "$@" 2>&1 | tee "$results/$name.log"
}

largest="65536x65536x4096"
rest="info_nce and not pooled and not cut-cross-entropy and not $largest"
small="512x512 or 1024x1024 or 2048x2048"
for part in "${@:-tests headline infonce small matching cce steps1 steps2 steps3}"; do
  for name in $part; do
    case $name in
      tests) timeout 590 python3 -m pytest tests -q -m gpu 2>&1 | tee "$results/tests.log" ;;
      headline) bench headline 540 -k "$largest and not cut-cross-entropy" ;;
      infonce) bench infonce 540 -k "$rest and not ($small)" ;;
      small) bench small 540 -k "$rest and ($small)" ;;
      matching) bench matching 540 -k "language_matching or span_mean or pooled" ;;
      # Apart from the others: its locks can hang, and then the whole process is lost.
      cce) bench cce 540 -k "cut-cross-entropy" ;;
      steps1) bench steps1 480 -k "8b-qlora-align-1024" ;;
      steps2) bench steps2 480 -k "8b-qlora-align-128 or 8b-qlora-instruct-128" ;;
      steps3) bench steps3 420 -k "8b-lora-align-1024 or 8b-qlora-align-4096" ;;
      *) echo "unknown part: $name" >&2; exit 2 ;;
    esac
  done
done
