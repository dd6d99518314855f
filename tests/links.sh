#!/usr/bin/env bash
# Links of the Markdown files: what they name inside the project must be there, headings included.  Other hosts are not
# asked.
set -u
cd "$(dirname "$0")/.."
failed=0
# A heading as its anchor: lower case, punctuation gone, spaces as dashes.
anchors() { grep -E '^#+ ' "$1" | sed -E 's/^#+ +//; s/[^[:alnum:] _-]//g; s/ /-/g' | tr '[:upper:]' '[:lower:]'; }
while IFS= read -r file; do
  # Without code, where brackets mean something else.
  links=$(awk '/^ *```/ {code = !code; next} !code' "$file" | sed -E 's/`[^`]*`//g' | grep -oE '\]\([^) ]+\)' | sed -E 's/^\]\(//; s/\)$//')
  for link in $links; do
    case $link in http://* | https://* | mailto:*) continue ;; esac
    path=${link%%#*} anchor=
    [ "$link" != "$path" ] && anchor=${link#*#}
    target=$file
    [ -n "$path" ] && target=$(dirname "$file")/$path
    if [ ! -e "$target" ]; then
      echo "$file: there is no $path"
      failed=1
    elif [ -n "$anchor" ] && ! anchors "$target" | grep -qxF -- "$anchor"; then
      echo "$file: $target has no heading '$anchor'"
      failed=1
    fi
  done
done < <(git ls-files '*.md')
[ "$failed" = 0 ] && echo "links: ok"
exit "$failed"
