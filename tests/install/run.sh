#!/usr/bin/env bash
# Builds a program against an installed mixrec in every way that README names.  Usage: tests/install/run.sh PREFIX VERSION
set -euo pipefail
prefix=$1 version=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

[ "$("$prefix/bin/mixrec" --version | cut -d' ' -f1,2)" = "mixrec $version" ] || { echo "install: bin/mixrec is not version $version"; exit 1; }
if command -v pkg-config >/dev/null; then
  export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
  [ "$(pkg-config --modversion mixrec)" = "$version" ]
  # shellcheck disable=SC2046
  g++ "$here/consumer.cpp" $(pkg-config --cflags --libs mixrec) -o by_pkg_config
  ./by_pkg_config
  # The examples need nothing that is not installed.
  for example in "$root"/examples/*.cpp; do
    # shellcheck disable=SC2046
    g++ -fsyntax-only $(pkg-config --cflags mixrec) "$example"
  done
  echo "install: pkg-config ok"
else
  echo "skipped: a program by pkg-config, which is not installed"
fi
if command -v cmake >/dev/null; then
  cmake -S "$here" -B by_cmake -DCMAKE_PREFIX_PATH="$prefix" -DMIXREC_WANTED="${version%.*}" >cmake.log || { cat cmake.log; exit 1; }
  cmake --build by_cmake >cmake.log 2>&1 || { cat cmake.log; exit 1; }
  by_cmake/consumer
  if cmake -S "$here" -B too_new -DCMAKE_PREFIX_PATH="$prefix" -DMIXREC_WANTED=99.0 >cmake.log 2>&1; then
    echo "install: CMake took version $version for 99.0"
    exit 1
  fi
  echo "install: CMake ok"
else
  echo "skipped: a program by CMake, which is not installed"
fi
if grep -rlE '#include <(nlohmann|CLI|doctest)/' "$prefix/include/mixrec"; then
  echo "install: these installed headers need headers of others"
  exit 1
fi
