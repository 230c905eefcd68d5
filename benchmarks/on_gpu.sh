#!/usr/bin/env bash
# What to run whenever a GPU is at hand, in calls of at most ten minutes; no installation, PYTHONPATH=src.
#
#     benchmarks/on_gpu.sh speed     CIFAR100_FOLDER OUT          engines against a bare loop; whole runs; side by side
#     benchmarks/on_gpu.sh precision CIFAR100_FOLDER OUT          bfloat16 against float32, 10 seeds each of a short recipe
#     benchmarks/on_gpu.sh block     CIFAR100_FOLDER OUT          the block: is it right there, what does it cost; 9 minutes
#     benchmarks/on_gpu.sh next      CIFAR100_FOLDER OUT WORK     nine minutes of results/next.sh; call it again and again
#
# Set SRBLOCK_COMMIT where the tree is a copy without git, and PARALLEL to how many runs share the GPU (keep it the same).
# OUT gets the CSVs, tables and the archive of records (`srblock results add ARCHIVE`); WORK keeps unfinished runs. `next`
# takes the engine that `speed` has found the fastest, if OUT has its CSV, else eager (keep it the same, too).
#
# `block` needs torch 2.8 or later, numpy, torchvision, safetensors and scipy; without timm it leaves SE and CBAM by
# themselves out. It looks at no image (CIFAR100_FOLDER is there for the form's sake). The others need srblock's extra
# `experiments`: where there is no network, put the wheels of what is missing (cyclopts, docstring-parser, rich-rst) into a
# folder, unpacked, and that into PYTHONPATH. PYTHON says which Python, by default the first with torch.
# Each part has its own seconds and leaves what it measured when they are over; the parts that matter most come
# first. DEVICE=cpu and SECONDS_EACH try it where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
with_torch() { # the first Python that has torch
  for name in python python3; do
    if "$name" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("torch"))' 2> /dev/null; then
      command -v "$name"
      return
    fi
  done
  echo "neither python nor python3 has torch; say which one has it: PYTHON=..." >&2
  return 2
}
PYTHON=${PYTHON:-$(with_torch)}
python() { "$PYTHON" "$@"; }
need() { python -c "import $1" || { echo "this stage needs $1; carry its wheels, as the header says" >&2; exit 2; }; }
stage=${1:?speed, precision, block or next} data=${2:?folder of cifar-100-binary} out=${3:?folder for what comes back}
mkdir -p "$out"
case $stage in
  speed)
    need cyclopts
    python benchmarks/train_speed.py --data "cifar100:$data" --network R18 --block "SR(M=4, P=2)" --steps 100 --rounds 5 \
      --engines eager,graph,compile,compile+graph --workers 5 --epochs 3 --profile --out "$out" | tee "$out/speed.txt"
    ;;
  precision)
    need cyclopts
    for precision in float32 bfloat16; do
      python -m srblock compare R20 "R20 + SR(M=3, P=8)" --data "cifar100:$data" --epochs 6 --seeds 10 --workers 4 \
        --precision "$precision" --out "$out/$precision" | tee "$out/$precision.txt"
    done
    ;;
  block)
    device=${DEVICE:-cuda} graph=graph ending=0
    if [ "$device" = cpu ]; then graph=eager; fi
    part() { # seconds, a script and its options
      local seconds=${SECONDS_EACH:-$1} status=0
      echo "$ ${*:2}"
      timeout --kill-after=5 "$seconds" "$PYTHON" "benchmarks/$2" --device "$device" "${@:3}" || status=$?
      case $status in
        0) ;;
        124 | 137) echo "its $seconds s are over" ;;
        *) ending=$status ;;
      esac
    }
    exec > >(tee "$out/block.txt") 2>&1
    part 60 check_block.py --engines "eager,$graph"
    part 60 check_step.py --engines "$graph"
    part 75 block.py --rounds 15 --seconds 2 --out "$out"
    part 100 network.py --engine "$graph" --cases imagenet,r50,r18 --rounds 21 --out "$out"
    part 40 fold.py --out "$out"
    part 60 check_block.py --engines compile
    part 40 check_step.py --engines compile
    part 90 block.py --engines compile --rounds 15 --seconds 2 --without naive,cbam,copy --out "$out"
    exit "$ending"
    ;;
  next)
    work=${4:?folder for unfinished runs} status=0
    need cyclopts
    export SRBLOCK="$PYTHON -m srblock"
    options=(--engine "$(python benchmarks/fastest_engine.py "$out")")
    if [ "${PARALLEL:-1}" -gt 1 ]; then options+=(--workers "$PARALLEL"); fi
    results/next.sh 9 "cifar100:$data" "$work" "${options[@]}" || status=$?
    if compgen -G "$work/runs/*/result.json" > /dev/null; then
      python -m srblock results pack "$work" "$out/records.tar.gz"
    fi
    exit "$status"
    ;;
  *) echo "unknown stage $stage: speed, precision, block or next" >&2; exit 2 ;;
esac
