#!/usr/bin/env bash
# Every figure that is wanted of one GPU, the most wanted first, in TOTAL seconds at most; a short table comes last.
#   bash tools/benchmark_gpu.sh
#   DEVICE=cpu SIZE=65 PEER_SIZE=64 BATCH=2 ROUNDS=1 MODEL="model.encoder.width=0.25" bash tools/benchmark_gpu.sh
# A piece that fails, or that has no time left, says so in a line, and the next one runs.
set -u
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1 # what a stopped piece has printed is kept
PYTHON=${PYTHON:-python}
DEVICE=${DEVICE:-cuda}
SIZE=${SIZE:-513}           # of ours alone
PEER_SIZE=${PEER_SIZE:-512} # beside smp, which takes multiples of 16
BATCH=${BATCH:-16}
ROUNDS=${ROUNDS:-15}
LIMIT=${LIMIT:-120} # seconds a piece
TOTAL=${TOTAL:-450} # seconds in all
MODEL=${MODEL:-}    # more overrides, in words
LOGS=${LOGS:-runs/benchmark_gpu}

mkdir -p "$LOGS" || exit 1
: > "$LOGS/table.txt"
SECONDS=0
number=0

# piece TITLE infer|train OVERRIDES...
piece() {
  local title=$1 what=$2
  shift 2
  number=$((number + 1))
  local log=$LOGS/$number.txt left=$((TOTAL - SECONDS))
  [ "$left" -lt "$LIMIT" ] || left=$LIMIT
  echo "== $title ($SECONDS s)"
  if [ "$left" -lt 10 ]; then
    echo "$title: left out, no time" | tee "$log"
    return
  fi
  # shellcheck disable=SC2086 # MODEL is several words
  timeout -k 5 "$left" "$PYTHON" tools/benchmark.py "$what" "device=$DEVICE" "batch_size=$BATCH" "rounds=$ROUNDS" \
    $MODEL "$@" > "$log" 2> "$log.err"
  local status=$?
  cat "$log"
  if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    echo "$title: stopped after $left s"
  elif [ "$status" -ne 0 ]; then
    echo "$title: $(tail -n 1 "$log.err")"
  fi
  # The first table, without its header, each row behind the piece's title.
  sed -n '/^where the time/q; /^| \(network\|--\)/d; s/^| /| '"$title"' | /p' "$log" >> "$LOGS/table.txt"
}

peers="size=[$PEER_SIZE,$PEER_SIZE] layers=false"
alone="size=[$SIZE,$SIZE] contenders=[segapp]"
both="contenders=[segapp,smp,smp-channels_last]"
float32="precision=float32"
OS8="model.output_stride=8"

# shellcheck disable=SC2086
{
  piece "train $SIZE OS16 eager" train $alone layers=true
  piece "train $PEER_SIZE OS16 eager" train $peers
  piece "infer $PEER_SIZE OS16 eager" infer $peers
  piece "infer $SIZE OS16 eager" infer $alone layers=true
  piece "train $SIZE OS16 compiled" train $alone layers=false compile=true
  piece "train $PEER_SIZE OS16 compiled" train $peers "contenders=[segapp,smp-channels_last]" compile=true
  piece "train $SIZE OS8 eager" train $alone layers=false $OS8
  piece "infer $SIZE OS8 eager" infer $alone layers=false $OS8
  piece "train $PEER_SIZE OS16 float32" train $peers $float32 $both
  piece "infer $PEER_SIZE OS16 float32" infer $peers $float32 $both
  piece "infer $PEER_SIZE OS16 compiled" infer $peers "contenders=[segapp,smp-channels_last]" compile=true
  piece "infer $PEER_SIZE OS8 eager" infer $peers $both $OS8
  piece "train $PEER_SIZE OS8 eager" train $peers $both $OS8
  piece "infer $SIZE OS16 compiled" infer $alone layers=false compile=true
  piece "train $SIZE OS8 compiled" train $alone layers=false compile=true $OS8
  piece "infer $SIZE OS8 compiled" infer $alone layers=false compile=true $OS8
}

echo
echo "In $SECONDS s; whole logs are in $LOGS."
echo "| piece | network | median ms | min | max | images/s | x segapp | GFLOP | of matmul | peak GB | warm-up s |"
echo "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
sed 's/  */ /g' "$LOGS/table.txt"
