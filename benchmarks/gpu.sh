#!/usr/bin/env bash
# Run the GPU tests and the GPU benchmarks; every part ends within ten minutes.
#
#   benchmarks/gpu.sh RESULTS [PART ...]
#
# PART: tests headline steps1 steps2 steps3 steps4 matching infonce small cce (all of them in this order, if none is named).
# RESULTS receives one log per part and one JSON file per benchmark run. On a bare machine, WHEELS=FOLDER names a folder of wheels that
# are installed beside the machine's own packages, without a network, and left out of the repository.
set -uo pipefail

results=$(realpath -m "${1:?usage: benchmarks/gpu.sh RESULTS [PART ...]}")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
mkdir -p "$results"
export PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD:$PWD/kernels${PYTHONPATH:+:$PYTHONPATH} # a plain checkout, nothing of it installed

if [[ -n ${WHEELS:-} ]]; then
  site=${SITE:-/tmp/alignx-benchmark-packages}
  if [[ ! -d $site ]]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl || exit
  fi
  export PYTHONPATH=$site:$PYTHONPATH
fi

run_pytest() { # name, pytest's arguments; a file that cannot be imported costs its own tests only
  local name=$1
  shift
  timeout --kill-after=10 590 python3 -m pytest -q --continue-on-collection-errors "$@" 2>&1 | tee "$results/$name.log"
}

bench() { # name, seconds until no new case starts, files and pytest's further arguments
  local name=$1 budget=$2
  shift 2
  run_pytest "$name" --budget "$budget" --results "$results" "$@"
}

info_nce=benchmarks/test_info_nce.py
others=(benchmarks/test_language_matching.py benchmarks/test_span_mean.py benchmarks/test_pooled_info_nce.py)
step=benchmarks/test_train_step.py
largest="65536x65536x4096"
small="512x512 or 1024x1024 or 2048x2048"
for part in "${@:-tests headline steps1 steps2 steps3 steps4 matching infonce small cce}"; do
  for name in $part; do
    case $name in
      tests) run_pytest tests tests -m gpu ;;
      headline) bench headline 520 $info_nce -k "not cut-cross-entropy and not ($small)" ;;
      infonce) bench infonce 520 $info_nce -k "not cut-cross-entropy and not ($small) and not $largest" ;;
      small) bench small 520 $info_nce -k "not cut-cross-entropy and ($small)" ;;
      matching) bench matching 520 "${others[@]}" ;;
      # Apart from the others: its locks can hang, and then the whole process is lost.
      cce) bench cce 520 $info_nce -k "cut-cross-entropy" ;;
      # A training step takes one to four minutes, and the last one must end too.
      steps1) bench steps1 380 $step -k "8b-qlora-align-1024" ;;
      steps2) bench steps2 380 $step -k "8b-qlora-align-128" ;;
      steps3) bench steps3 380 $step -k "8b-qlora-instruct-128" ;;
      steps4) bench steps4 280 $step -k "8b-lora-align-1024 or 8b-qlora-align-4096" ;;
      *) echo "unknown part: $name" >&2; exit 2 ;;
    esac
  done
done
