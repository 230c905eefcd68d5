#!/usr/bin/env bash
# What to run whenever a GPU is at hand, in calls of at most ten minutes; no installation, PYTHONPATH=src.
#
#     benchmarks/on_gpu.sh speed     CIFAR100_FOLDER OUT          engines against a bare loop; whole runs; side by side
#     benchmarks/on_gpu.sh precision CIFAR100_FOLDER OUT          bfloat16 against float32, 10 seeds each of a short recipe
#     benchmarks/on_gpu.sh next      CIFAR100_FOLDER OUT WORK     nine minutes of results/next.sh; call it again and again
#
# Set SRBLOCK_COMMIT where the tree is a copy without git, and PARALLEL to how many runs share the GPU (keep it the same).
# OUT gets the CSVs, tables and the archive of records (`srblock results add ARCHIVE`); WORK keeps unfinished runs. `next`
# takes the engine that `speed` has found the fastest, if OUT has its CSV, else eager (keep it the same, too).
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=src
stage=${1:?speed, precision or next} data=${2:?folder of cifar-100-binary} out=${3:?folder for what comes back}
mkdir -p "$out"
case $stage in
  speed)
    python benchmarks/train_speed.py --data "cifar100:$data" --network R18 --block "SR(M=4, P=2)" --steps 100 --rounds 5 \
      --engines eager,graph,compile,compile+graph --workers 5 --epochs 3 --profile --out "$out" | tee "$out/speed.txt"
    ;;
  precision)
    for precision in float32 bfloat16; do
      python -m srblock compare R20 "R20 + SR(M=3, P=8)" --data "cifar100:$data" --epochs 6 --seeds 10 --workers 4 \
        --precision "$precision" --out "$out/$precision" | tee "$out/$precision.txt"
    done
    ;;
  next)
    work=${4:?folder for unfinished runs} status=0
    options=(--engine "$(python benchmarks/fastest_engine.py "$out")")
    if [ "${PARALLEL:-1}" -gt 1 ]; then options+=(--workers "$PARALLEL"); fi
    results/next.sh 9 "cifar100:$data" "$work" "${options[@]}" || status=$?
    if compgen -G "$work/runs/*/result.json" > /dev/null; then
      python -m srblock results pack "$work" "$out/records.tar.gz"
    fi
    exit "$status"
    ;;
  *) echo "unknown stage $stage: speed, precision or next" >&2; exit 2 ;;
esac
