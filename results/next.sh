#!/usr/bin/env bash
# What to run next whenever a machine is at hand, in order. Each command goes on where it stopped, so call this again and
# again with the same OUT; `srblock results pack OUT FILE` packs what is finished.
#
#     results/next.sh MINUTES DATA OUT [OPTIONS ...]
#
#     MINUTES   for all of it; what is left of them is each command's --minutes
#     DATA      CIFAR-100: cifar100, or cifar100:FOLDER
#     OUT       where the runs go, a folder outside of the repository
#     OPTIONS   for every command, such as --device cuda --engine graph --workers 2; without cuda the study that was
#               made for a CPU comes first
#
#     CIFAR10=cifar10:FOLDER   in the environment: Table V too, which is left out without
#     CAMVID=camvid:FOLDER     in the environment: the segmentation of road scenes too, small on a CPU
#     SEEDS=3-15               in the environment: which seeds of a study for a CPU, where OUT is new and the others have
#                              their records already (default: all)
#     STUDY=open-memory        in the environment: the study of that protocol and nothing else; those of
#                              sr-on-airbench and open-memory-screening are done
#     SRBLOCK="srblock"        in the environment: the command (default: this copy's, which needs no installation)
#
# Status: 0 when nothing is left, 75 when the time is up (call it again), otherwise that of the command that failed.
set -euo pipefail
minutes=${1:?minutes in all} data=${2:?CIFAR-100, such as cifar100:FOLDER} out=${3:?a folder outside of the repository}
options=("${@:4}")
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
case $(cd "$out" && pwd -P)/ in "$(cd "$root" && pwd -P)"/*)
  echo "error: $out lies in the repository; name a folder outside of it" >&2
  exit 2 ;;
esac
export PYTHONPATH=$root/results${PYTHONPATH:+:$PYTHONPATH}  # for wider.py
if [ -z "${SRBLOCK:-}" ]; then PYTHONPATH=$root/src:$PYTHONPATH; fi
read -ra srblock <<< "${SRBLOCK:-python -m srblock}"
seconds=$(awk -v m="$minutes" 'BEGIN { printf "%d", 60 * m }')

run() {  # a command of srblock, with the time that is left
  local left=$((seconds - SECONDS)) status=0
  if [ "$left" -le 0 ]; then exit 75; fi
  local words=("$@" --out "$out" --minutes "$(awk -v s="$left" 'BEGIN { printf "%.2f", s / 60 }')" ${options[@]+"${options[@]}"})
  printf '\n$ srblock'; printf ' %q' "${words[@]}"; printf '\n'
  "${srblock[@]}" "${words[@]}" || status=$?
  if [ "$status" -ne 0 ]; then exit "$status"; fi
}

airbench() {  # so many epochs, which seeds, and variants: a study that two CPU cores can do
  run compare "${@:3}" --data "$data" --recipe airbench --epochs "$1" --batch-size 512 --tta flip --precision float32 \
    --seeds "$2"
}

screening() {
  airbench 8 "${SEEDS:-4}" "Airbench94 + SR(M=2, P=8, gain=8)" \
    "Airbench94 + SR(M=2, P=8, gain=8, logits=standardized)" \
    "Airbench94 + SR(M=2, P=8, gain=8, logits=standardized, start=kmeans)" \
    "Airbench94 + SR(M=2, P=8, rank=4, gain=8, logits=standardized)" \
    "Airbench94 + SR(M=2, P=8, rank=4, gain=32, logits=standardized)" \
    "Airbench94 + SR(M=2, P=8, grid=1x1, gain=8, logits=standardized)"
}

opened="Airbench94 + SR(M=2, P=8, rank=4, gain=32, logits=standardized)"  # what the screening has chosen

confirmation() {  # two seeds at a time, the plain networks first, so that they are trained on before they can be lost
  local range=${SEEDS:-16-31} seed last pair
  local first=${range%-*} end=${range#*-}
  if ! [[ $range =~ ^[0-9]+-[0-9]+$ ]] || [ "$first" -lt 16 ] || [ "$first" -gt "$end" ] || [ "$end" -gt 31 ]; then
    echo "error: SEEDS is $range; the confirmation has 16-31, or a part by its first and last seed, such as 18-31" >&2
    exit 2
  fi
  for ((seed = first; seed <= end; seed += 2)); do
    last=$((seed < end ? seed + 1 : seed))
    pair=$seed-$last
    airbench 8 "$pair" "Airbench94" "$opened"
    trained_on "$pair"
    airbench 8 "$pair" "Airbench94" "$opened" "Airbench94 + SR(M=2, P=8)" "Airbench94 + SE" wider:airbench94
  done
}

trained_on() {  # from the plain networks of these seeds, without and with the block
  local weights="$out/runs/airbench94-s{seed}-*/checkpoint.safetensors"
  local out=$out/trained-on
  airbench 2 "$1" "Airbench94" "$opened" --lr 1.15 --weights "$weights"
}

case ${STUDY:-} in
  '') case " ${options[*]-} " in *cuda*) ;; *) confirmation ;; esac ;;  # a GPU has better to do
  open-memory) confirmation; exit 0 ;;
  open-memory-screening) screening; exit 0 ;;
  sr-on-airbench)
    airbench 8 "${SEEDS:-16}" "Airbench94" "Airbench94 + SR(M=3, P=8)" "Airbench94 + SR(M=2, P=8)" "Airbench94 + SE"
    exit 0 ;;
  *) echo "error: STUDY is $STUDY, known are open-memory, open-memory-screening and sr-on-airbench" >&2; exit 2 ;;
esac

# Segmentation: about 25 minutes a run on two cores at half size, the rate chosen on validation (LOG.md); DeepLab v3 at full size on a GPU.
if [ -n "${CAMVID:-}" ]; then
  case " ${options[*]-} " in
    *cuda*) run compare "DLv3-R50" "DLv3-R50 + SR(M=3, P=2, U=16)" --data "$CAMVID" --epochs 100 --seeds 5 ;;
    *) run compare "FCN-R18" "FCN-R18 + SR(M=3, P=3, U=32)" --data "$CAMVID" --scene-scale 0.5 --lr 0.05 --epochs 32 --seeds 5 ;;
  esac
fi

four=("R18" "R18 + SR(M=4, P=2)" "R18 + D2D" "R18 + D2D + SR(M=4, P=12)")

# (a) The paper's claim at its own size, with the paper's recipe.
run compare "${four[@]}" --data "$data" --seeds 5

# (b) Short runs, but enough of them to resolve 0.2 points.
run compare "${four[@]}" --data "$data" --seeds 30 --epochs 30

# (c) The other R18 rows of Tables I and II.
run reproduce table1 --rows "R18*" --data "$data" --seeds 5
run reproduce table2 --rows "R18*" --data "$data" --seeds 5

# (d) The other networks, from the cheapest to the dearest.
run reproduce table1 --rows "R34*" --data "$data" --seeds 5
run reproduce table2 --rows "R34*" --data "$data" --seeds 5
run reproduce table1 --rows "VGG16*" --data "$data" --seeds 5
run reproduce table1 --rows "R50*" --data "$data" --seeds 5
run reproduce table2 --rows "R50*" --data "$data" --seeds 5

# Table V, when CIFAR-10 is at hand.
if [ -n "${CIFAR10:-}" ]; then
  run reproduce table5 --data "$CIFAR10" --seeds 5
fi
