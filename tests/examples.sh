#!/usr/bin/env bash
# Runs every example at toy size, and compiles and runs the README's programs.  Usage: tests/examples.sh [BUILD]
set -euo pipefail
build=${1:-build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Shows the last line of what a program prints, and all that it said when it fails.
show() {
  printf 'example: %s\n' "$1"
  shift
  if ! "$@" >"$work/out" 2>"$work/err"; then cat "$work/out" "$work/err"; exit 1; fi
  tail -1 "$work/out" | cut -c1-150
}

show 01_quickstart "$build/examples/01_quickstart" "$work/log" 20
show 02_autograd "$build/examples/02_autograd"
show 03_own_model "$build/examples/03_own_model" train --config examples/configs/simulated/interest.json \
  --data "$work/log" --out "$work/run" --set train.max_steps=60

"$build/mixrec" train --config examples/configs/simulated/ui_mixformer.json --data "$work/log" --out "$work/scored" \
  --set train.max_steps=60 --quiet >/dev/null
show 04_score "$build/examples/04_score" "$work/scored" 1 2 3
echo '{"user": "1", "candidates": ["2", "3"]}' >"$work/requests"
show "mixrec score" "$build/mixrec" score --run "$work/scored" --in "$work/requests"
show "mixrec verify" "$build/mixrec" verify "$work/scored" --rows 500

awk -v out="$work" '/^```cpp/ {n++; on = 1; next} /^```/ {on = 0} on {print > (out "/readme" n ".cpp")}' README.md
for program in "$work"/readme*.cpp; do
  g++ -std=c++20 -fopenmp -I"$build/include" -I"$build/generated" "$program" "$build/libmixrec.a" $(cat "$build/generated/libraries") \
    -o "$work/readme"
  (cd "$work" && show "README.md, $(basename "$program")" ./readme)
done
