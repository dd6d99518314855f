#!/usr/bin/env bash
# The programs of this folder, one after the other:  tests/faults/run.sh [--long] [NAME ...]
# MIXREC names the program to try (default build/mixrec).  Prints "name: N passed, N failed, N skipped" for each.
set -u
cd "$(dirname "$0")/../.."
long=
[ "${1:-}" = --long ] && { long=--long; shift; }
names=${*:-kills disks limits bytes nested together fuzz}
command -v python3 >/dev/null || { echo "skipped: the programs of tests/faults need python3"; exit 0; }
failed=0 child=
said=$(mktemp)
trap 'rm -f "$said"' EXIT
# Whoever ends this ends the program that runs, which tidies up first.
trap '[ -z "$child" ] || { kill "$child"; wait "$child"; tail -1 "$said"; } 2>/dev/null; exit 130' INT TERM HUP
for name in $names; do
  start=$SECONDS
  python3 "tests/faults/$name.py" $long >"$said" 2>&1 &
  child=$!
  if wait "$child"; then code=0; else code=1 failed=1; fi
  child=
  [ "$code" = 0 ] || head -n -1 "$said"
  [ "$code" = 1 ] || grep -E '^skipped|under libFuzzer' "$said" || true
  printf '%-9s %s (%s s)\n' "$name:" "$(tail -1 "$said")" "$((SECONDS - start))"
done
exit "$failed"
