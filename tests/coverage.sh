#!/usr/bin/env bash
# The share of the library's lines that the tests run, by folder.  Usage: tests/coverage.sh BUILD, after the tests of
# a build with COVERAGE=1.  Prints a table in Markdown.
set -euo pipefail
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$PWD
# gcov prints, for each source of each object: File 'x' / Lines executed:90.00% of 120.  Headers come with every object
# that includes them, so only each object's own source counts.
find "$build/obj" -name '*.gcno' -not -path '*/tests/*' | sort | while read -r notes; do
  source=${notes#"$build"/obj/}
  source=${source%.gcno}.cpp
  (cd "$work" && gcov -n -o "$(dirname "$root/$notes")" "$root/$notes" 2>/dev/null) |
    awk -v source="$source" '/^File / {own = index($0, source) > 0} /^Lines executed:/ && own {
      sub(/^Lines executed:/, ""); split($0, part, "% of "); print source, part[2], part[1] * part[2] / 100; own = 0}'
done >"$work/files"
awk '{split($1, part, "/"); lines[part[1]] += $2; run[part[1]] += $3; files[part[1]]++; all += $2; ran += $3; count++}
  END {
    print "| folder | files | lines | run by the tests |"; print "|---|---|---|---|"
    n = split("core autograd ops nn models optim data train", order, " ")
    for (i = 1; i <= n; ++i) printf "| %s | %d | %d | %.1f %% |\n", order[i], files[order[i]], lines[order[i]], 100 * run[order[i]] / lines[order[i]]
    printf "| all | %d | %d | %.1f %% |\n", count, all, 100 * ran / all
  }' "$work/files"
echo
echo "Files below 80 %:"
echo
awk '$2 > 0 && $3 / $2 < 0.8 {printf "- %s: %.0f %% of %d lines\n", $1, 100 * $3 / $2, $2}' "$work/files" | sort
