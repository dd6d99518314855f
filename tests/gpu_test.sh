#!/usr/bin/env bash
# What needs a card: every test, then the op table under compute-sanitizer.  Leaves tests/gpu_last_run.txt.
#
#   tests/gpu_test.sh [build/tests/run_tests]
set -euo pipefail
cd "$(dirname "$0")/.."
tests=${1:-build/tests/run_tests}
report=tests/gpu_last_run.txt

card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1 || true)
[ -n "$card" ] || { echo "gpu-test needs an NVIDIA card, and nvidia-smi finds none here"; exit 1; }
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

# Of every source, with or without git at hand.
hash_of_sources() {
  find autograd core data examples models nn ops optim tests train Makefile -type f \
    \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.inc' -o -name '*.sh' -o -name Makefile \) |
    LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1
}

failed=0
lines=()
# NAME COMMAND...: runs it, and keeps its last line.
check() {
  local name=$1 start=$SECONDS status=0
  shift
  printf '\n== %s\n' "$name"
  "$@" 2>&1 | tee "$log/out" || status=$?
  [ "$status" = 0 ] || failed=1
  lines+=("$name: $(tail -1 "$log/out") ($((SECONDS - start)) s, exit code $status)")
}

check "tests" "$tests"
if grep -q '^skipped: .*on a card:' "$log/out"; then
  grep '^skipped: .*on a card:' "$log/out" | head -1
  echo "gpu-test: the tests did not see the card; was $tests built with CUDA=1?"
  exit 1
fi

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
for tool in memcheck racecheck; do
  if [ -z "$sanitizer" ]; then
    lines+=("$tool: not run, compute-sanitizer is not installed")
    continue
  fi
  check "$tool" "$sanitizer" --tool "$tool" --error-exitcode 1 "$tests" \
    -tc='cuda: ops: f32*,cuda: ops: row strides*'
done

{
  echo "make gpu-test, $(date -u +%Y-%m-%d)"
  echo "card, driver: $card"
  echo "sources: sha256 $(hash_of_sources)"
  commit=$(git rev-parse HEAD 2>/dev/null) && echo "commit: $commit$(git diff --quiet HEAD -- . ":!$report" 2>/dev/null || echo ', with changes')"
  printf '%s\n' "${lines[@]}"
} >"$report"
printf '\n'
cat "$report"
exit "$failed"
