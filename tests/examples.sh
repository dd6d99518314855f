#!/usr/bin/env bash
# Runs every example at toy size, and compiles and runs the README's programs.  Usage: tests/examples.sh [BUILD]
set -euo pipefail
build=${1:-build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf 'example: %s\n' "$1"; }

say "01_quickstart"
"$build/examples/01_quickstart" "$work/log" 20 2>/dev/null | tail -1
say "02_autograd"
"$build/examples/02_autograd" | tail -1
say "03_own_model"
"$build/examples/03_own_model" train --config examples/configs/simulated/interest.json --data "$work/log" \
  --out "$work/run" --set train.max_steps=20 2>/dev/null | cut -c1-120

say "README.md"
awk -v out="$work" '/^```cpp/ {n++; on = 1; next} /^```/ {on = 0} on {print > (out "/readme" n ".cpp")}' README.md
for program in "$work"/readme*.cpp; do
  g++ -std=c++20 -fopenmp -I"$build/include" -I"$build/generated" "$program" "$build/libmixrec.a" -o "$work/readme"
  (cd "$work" && ./readme 2>/dev/null | tail -1)
done
