#!/usr/bin/env bash
# Run the GPU tests and the GPU benchmarks; every part, installing included, ends within ten minutes.
#
#   benchmarks/gpu.sh [--dry-run] RESULTS [PART ...]
#
# PART: tests headline steps1 steps2 steps3 steps4 matching infonce small cce (all of them in this order, if none is named).
# RESULTS receives two files a call: a log, and the JSON that `python -m benchmarks.render` reads. The last lines say of every goal whether
# it is met, missed or open. On a bare machine, WHEELS=FOLDER names a folder of wheels that are installed beside the machine's own
# packages, without a network. --dry-run walks through the parts with tiny sizes, on any machine.
set -uo pipefail

every_part=(tests headline steps1 steps2 steps3 steps4 matching infonce small cce)
usage="usage: benchmarks/gpu.sh [--dry-run] RESULTS [PART ...]; the parts are: ${every_part[*]}"
dry=()
if [[ ${1:-} == --dry-run ]]; then
  dry=(--dry-run)
  shift
fi
[[ -n ${1:-} ]] || { echo "$usage" >&2; exit 2; }
results=$(realpath -m "$1")
shift
read -ra parts <<< "${*:-${every_part[*]}}"
for part in "${parts[@]}"; do
  [[ " ${every_part[*]} " == *" $part "* ]] || { echo "unknown part: $part; $usage" >&2; exit 2; }
done

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
mkdir -p "$results"
name=$(date +%Y%m%d-%H%M%S)
log=$results/$name.log
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python=${PYTHON:-python3}
export PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD:$PWD/kernels${PYTHONPATH:+:$PYTHONPATH} # a plain checkout, nothing of it installed

install_wheels() { # into $1; what is there already is kept only if it was finished, and from the same wheels
  local site=$1 wanted
  wanted=$(cd "$WHEELS" && ls -l --time-style=+ ./*.whl) || return
  [[ -f $site/.wheels && $(<"$site/.wheels") == "$wanted" ]] && return
  rm -rf "$site"
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl && printf '%s\n' "$wanted" > "$site/.wheels"
}

started=0 # of the part, in bash's seconds; the first one pays for installing
if [[ -n ${WHEELS:-} ]]; then
  site=${SITE:-/tmp/alignx-benchmark-packages}
  install_wheels "$site" || { echo "the wheels of $WHEELS could not be installed into $site" >&2; exit 1; }
  export PYTHONPATH=$site:$PYTHONPATH
fi

left() { # $1 minus the seconds that the part has taken, 1 at least
  local seconds=$(($1 - SECONDS + started))
  echo $((seconds > 1 ? seconds : 1))
}

run_pytest() { # pytest's arguments; a file that cannot be imported costs its own tests only
  timeout --kill-after=10 "$(left 540)" "$python" -m pytest -q -p no:cacheprovider --continue-on-collection-errors "$@"
}

bench() { # part, seconds until no new case starts, files
  local part=$1 budget=$2
  shift 2
  run_pytest "$@" --part "$part" --budget "$(left "$budget")" --until "$(left 520)" --results "$results/$name.json" "${dry[@]}" 2>&1 | tee -a "$log"
}

# The tests share the GPU, and the compiler has all cores: one process for every folder of kernels, and two for those that train.
run_tests() {
  local group folder pids=()
  for group in tests/kernels/{span_mean,info_nce,language_matching,pooled_info_nce} "tests/models tests/memory" tests/training; do
    folder=$scratch/${group//[ \/]/-}
    # shellcheck disable=SC2086  (two folders)
    { run_pytest $group -m gpu > "$folder.out" 2>&1; echo $? > "$folder.code"; } &
    pids+=($!)
  done
  wait "${pids[@]}"
  tail -n +1 "$scratch"/*.out | tee -a "$log"
}

verdict() { # of the tests of "kernels" or "training", by pytest's exit codes; in a dry run they are all skipped
  local codes state=open
  case $1 in
    kernels) codes=("$scratch"/tests-kernels-*.code) ;;
    training) codes=("$scratch"/tests-{models-tests-memory,training}.code) ;;
  esac
  if [[ -f ${codes[0]} && ${#dry[@]} == 0 ]]; then
    state=met
    for code in "${codes[@]}"; do
      [[ $(<"$code") == 0 ]] || state=missed
    done
  fi
  echo "$state"
}

info_nce=benchmarks/test_info_nce.py
others=(benchmarks/test_language_matching.py benchmarks/test_span_mean.py benchmarks/test_pooled_info_nce.py)
for part in "${parts[@]}"; do
  echo "=== $part" | tee -a "$log"
  case $part in
    tests) run_tests ;;
    matching) bench "$part" 440 "${others[@]}" ;;
    steps*) bench "$part" 300 benchmarks/test_train_step.py ;; # a training step takes one to four minutes
    *) bench "$part" 440 $info_nce ;;
  esac
  started=$SECONDS
done
"$python" -m benchmarks.verdict "$results" "every kernel test of a GPU passes=$(verdict kernels)" \
  "every training test of a GPU passes=$(verdict training)" 2>&1 | tee -a "$log"
