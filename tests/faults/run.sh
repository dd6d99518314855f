#!/usr/bin/env bash
# The programs of this folder, one after the other:  tests/faults/run.sh [--long] [NAME ...]
# MIXREC names the program to try (default build/mixrec).  Prints "name: N passed, N failed, N skipped" for each.
set -u
cd "$(dirname "$0")/../.."
long=
[ "${1:-}" = --long ] && { long=--long; shift; }
names=${*:-kills disks limits bytes nested together fuzz}
command -v python3 >/dev/null || { echo "skipped: the programs of tests/faults need python3"; exit 0; }
failed=0
for name in $names; do
  start=$SECONDS
  if out=$(python3 "tests/faults/$name.py" $long 2>&1); then code=0; else code=1 failed=1; fi
  [ "$code" = 0 ] || printf '%s\n' "$out" | head -n -1
  printf '%s\n' "$out" | grep '^skipped' || true
  printf '%-9s %s (%s s)\n' "$name:" "$(printf '%s\n' "$out" | tail -1)" "$((SECONDS - start))"
done
exit "$failed"
