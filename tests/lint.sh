#!/usr/bin/env bash
# Rules that a compiler does not check.  Run from the project's root: tests/lint.sh
set -u
failed=0
complain() { printf '%s\n' "$1"; failed=1; }

# Arrows between folders point one way: what each may include.
declare -A may=(
  [core]="core"
  [autograd]="core autograd"
  [ops]="core autograd ops"
  [nn]="core autograd ops nn"
  [models]="core autograd ops nn models"
  [optim]="core autograd ops optim"
  [data]="core data"
  [train]="core autograd ops nn models optim data train"
)
for room in "${!may[@]}"; do
  allowed=$(printf '%s' "${may[$room]} config.h commit.h compression.h" | tr ' ' '|')
  hits=$(grep -rnE '#include "mixrec/' "$room" --include='*.h' --include='*.cpp' --include='*.cu' --include='*.cuh' |
    grep -vE "#include \"mixrec/($allowed)[/\"]")
  [ -n "$hits" ] && complain "$room/ may include only: ${may[$room]}
$hits"
done

# Heavy or third-party headers stay out of ours, and in few sources.
rooms=(core autograd ops nn models optim data train)
hits=$(grep -rnE '#include <(nlohmann|CLI|doctest)/' "${rooms[@]}" --include='*.h')
[ -n "$hits" ] && complain "third-party headers in a header of ours:
$hits"
[ "$(grep -rlE '#include <CLI/' "${rooms[@]}" --include='*.cpp' | wc -l)" -le 1 ] || complain "CLI11 belongs in one source file"
hits=$(grep -rnE '#include <cuda' "${rooms[@]}" --include='*.h' | grep -v '^core/cuda_')
[ -n "$hits" ] && complain "CUDA headers in a public header:
$hits"

# Six macros at most, no leftovers, includes spelled from the project's name.
macros=$(grep -rhoE '^#define MR_[A-Z_]+' "${rooms[@]}" --include='*.h' | grep -v MR_INSTANTIATE | sort -u | wc -l)
[ "$macros" -le 6 ] || complain "$macros MR_* macros in headers, at most 6"
hits=$(git grep -nE '\b(TODO|FIXME|XXX|HACK)\b' -- '*.h' '*.cpp' '*.cu' '*.cuh' '*.py' '*.md' Makefile)
[ -n "$hits" ] && complain "left open:
$hits"
hits=$(git grep -nE '#include "' -- '*.h' '*.cpp' '*.cu' '*.cuh' | grep -v '#include "mixrec/')
[ -n "$hits" ] && complain "includes are spelled \"mixrec/folder/file.h\":
$hits"
hits=$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs wc -l | awk '$1 > 450 && $2 != "total" {print $2 ": " $1 " lines"}')
[ -n "$hits" ] && complain "files over 450 lines:
$hits"

if command -v clang-format >/dev/null; then
  hits=$(git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs clang-format --dry-run 2>&1 | grep -oE '^[^:]+:[0-9]+' | sort -u | head -20)
  [ -n "$hits" ] && complain "not formatted (make format):
$hits"
else
  echo "lint: clang-format is not installed, formatting was not checked"
fi
[ "$failed" = 0 ] && echo "lint: ok"
exit "$failed"
