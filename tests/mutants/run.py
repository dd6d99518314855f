#!/usr/bin/env python3
"""Applies small wrong changes to a copy of the tree, one at a time, and says which of them no test sees.

    tests/mutants/run.py                              all of tests/mutants/list.txt
    tests/mutants/run.py 'pow*' 'adam without bias'   those whose names match
    tests/mutants/run.py --sample 6 --seed HASH       six, chosen by a text
    tests/mutants/run.py --check                      only the list: every text occurs exactly once

Needs a built tree (make test-build).  Writes build/mutants/table.md; what earlier runs found of entries that have not
changed since stays in it (--fresh forgets it; --missing runs what was not seen).  Exits with 1 when a change survived, with 2 when
the list is wrong: a text that does not occur exactly once, a change that does not build or changes no object, tests that
do not exist or fail without any change.

The list holds one block per change, separated by empty lines; a line that starts with # is a comment:

    name:  what is wrong, in a few words
    in:    a folder of the library
    from:  source text that occurs exactly once there (any run of spaces and newlines equals any other)
    to:    what replaces it
    tests: the tests that should see it, a filter of doctest (-tc)
    op:    for tests of the op table: the op whose rows run (optional)
"""

import argparse
import concurrent.futures
import fnmatch
import hashlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).resolve().parent / "list.txt"
SOURCES = {".cpp", ".h"}
FOLDERS = ["core", "autograd", "ops", "nn", "models", "optim", "data", "train"]
PATIENCE = 120  # seconds for the tests of one change: one that never ends was seen


class ListError(Exception):
    pass


class Mutant:
    KEYS = {"name", "in", "from", "to", "tests", "op"}

    def __init__(self, fields, line):
        missing = self.KEYS - {"op"} - fields.keys()
        if missing or fields.keys() - self.KEYS:
            raise ListError(f"{LIST.name}:{line}: missing {sorted(missing)}, unknown {sorted(fields.keys() - self.KEYS)}")
        self.name, self.where = fields["name"], fields["in"]
        self.old, self.new = fields["from"], fields["to"]
        self.tests, self.op = fields["tests"], fields.get("op", "")

    def entry(self):
        return [self.where, self.old, self.new, self.tests, self.op]

    def find(self):
        """The file that holds the text, and where."""
        files = sorted(p for p in (ROOT / self.where).rglob("*") if p.suffix in SOURCES)
        pattern = re.compile(r"\s+".join(re.escape(word) for word in self.old.split()))
        hits = [(file, hit) for file in files for hit in pattern.finditer(file.read_text())]
        if len(hits) != 1:
            raise ListError(f"'{self.name}': its text occurs {len(hits)} times in {self.where}: {self.old}")
        return hits[0]


def read_list():
    mutants, fields, start = [], {}, 0
    for number, line in enumerate(LIST.read_text().splitlines() + [""], 1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                mutants.append(Mutant(fields, start))
            fields, start = {}, number + 1
            continue
        key, _, value = line.partition(":")
        if key.strip() in fields:
            raise ListError(f"{LIST.name}:{number}: '{key}' twice")
        fields[key.strip()] = value.strip()
    names = [m.name for m in mutants]
    for name in {n for n in names if names.count(n) > 1}:
        raise ListError(f"two changes are called '{name}'")
    return mutants


class Tree:
    """A copy of the tree with its build folder."""

    def __init__(self, build, number):
        self.build, self.root = build, build / "mutants" / f"tree{number}"
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        for name in FOLDERS + ["examples", "tests", "Makefile"]:
            subprocess.run(["cp", "-a", ROOT / name, self.root], check=True)
        (self.root / "build/tests").mkdir(parents=True)
        for name in ["obj", "generated", "packages", "libmixrec.a", "tests/run_tests"]:
            if (build / name).exists():
                subprocess.run(["cp", "-a", build / name, self.root / "build" / name], check=True)

    def make(self):
        """Builds the tests; says what went wrong."""
        command = ["make", "-s", "CI=", "JOBS=1", "BUILD=build", *MAKE, "test-build"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, env=ENV)
        return "" if done.returncode == 0 else (done.stdout + done.stderr)[-1500:]

    def count_tests(self, tests):
        command = ["build/tests/run_tests", "-tc=" + tests, "-ltc", "--no-colors"]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, env=ENV)
        return int(re.search(r"passing the current filters: (\d+)", done.stdout).group(1))

    def test(self, tests, op="", patience=PATIENCE):
        """(passed, failed, name of the first test that failed)"""
        command = ["build/tests/run_tests", "-tc=" + tests, "--no-colors"]
        try:
            done = subprocess.run(command, cwd=self.root, capture_output=True, timeout=patience,
                                  env=dict(ENV, MIXREC_OP=op) if op else ENV)
        except subprocess.TimeoutExpired:
            return 0, 1, f"not ended after {patience} s"
        text = done.stdout.decode(errors="replace")
        last = re.search(r"(\d+) passed, (\d+) failed, \d+ skipped\s*$", text)
        case = re.search(r"^TEST CASE:\s*(.*)$", text, re.M)
        if not last:
            return 0, 1, (case.group(1) + ", " if case else "") + f"ended with {done.returncode}"
        return int(last.group(1)), int(last.group(2)), case.group(1) if case else ""

    def objects(self):
        return {p: p.stat().st_mtime_ns for p in (self.root / "build/obj").rglob("*.o")}

    def try_out(self, mutant):
        file, hit = mutant.find()
        copy = self.root / file.relative_to(ROOT)
        text = copy.read_text()
        if text != file.read_text():
            raise ListError(f"{file} changed while this ran")
        before = self.objects()
        copy.write_text(text[: hit.start()] + mutant.new + text[hit.end() :])
        try:
            said = self.make()
            if said:
                raise ListError(f"'{mutant.name}' does not build:\n{said}")
            touched = [p for p, at in self.objects().items() if before.get(p) != at]
            if all(self.original(p).read_bytes() == p.read_bytes() for p in touched):
                raise ListError(f"'{mutant.name}' changes no object")
            passed, failed, case = self.test(mutant.tests, mutant.op)
            return case if failed else None
        finally:
            shutil.copy2(file, copy)
            for p, at in self.objects().items():
                if before.get(p) != at:
                    shutil.copy2(self.original(p), p)

    def original(self, copied):
        return self.build / copied.relative_to(self.root / "build")


def problem(mutant):
    try:
        mutant.find()
    except ListError as error:
        return error


def chosen(mutants, args):
    if args.names:
        for name in args.names:
            if not any(fnmatch.fnmatch(m.name, name) for m in mutants):
                raise ListError(f"no change is called '{name}'")
        return [m for m in mutants if any(fnmatch.fnmatch(m.name, name) for name in args.names)]
    if args.sample:
        order = sorted(mutants, key=lambda m: hashlib.sha256((args.seed + m.name).encode()).digest())
        return order[: args.sample]
    return mutants


def check_tests_pass(tree, mutants):
    """Without a change every filter finds tests, and all of them pass; says of which entry that is not true."""
    counts, wrong = {}, {}
    for m in mutants:
        if m.tests not in counts:
            counts[m.tests] = tree.count_tests(m.tests)
        if counts[m.tests] == 0:
            wrong[m.name] = f"'{m.name}': no test is called {m.tests}"
    passed, failed, case = tree.test(",".join(sorted(counts)), patience=1200)
    if failed:
        raise ListError(f"without any change {failed} of {passed + failed} tests fail: {case}")
    return wrong


def run(mutants, args, build, found):
    trees, results, errors = queue.Queue(), {}, []
    if not mutants:
        return results, errors
    for number in range(min(args.jobs, len(mutants))):
        trees.put(Tree(build, number))
        said = trees.queue[-1].make()
        if said:
            raise ListError(f"the tree does not build:\n{said}")
    first = trees.get()
    wrong = {} if args.passing else check_tests_pass(first, mutants)
    trees.put(first)
    for said in wrong.values():
        errors.append(said)
        print(f"error: {said}", flush=True)
    mutants = [m for m in mutants if m.name not in wrong]

    def one(mutant):
        tree, start = trees.get(), time.time()
        try:
            seen = results[mutant.name] = tree.try_out(mutant)
            found[mutant.name] = {"entry": mutant.entry(), "seen": seen, "seconds": time.time() - start}
            (build / "mutants/results.json").write_text(json.dumps(found, indent=1))
            print(f"[{len(results)}/{len(mutants)}] {time.time() - start:5.1f} s  {mutant.name}: "
                  + (f"seen by {seen}" if seen else "SURVIVED"), flush=True)
        except ListError as error:
            errors.append(str(error))
            print(f"error: {error}", flush=True)
        finally:
            trees.put(tree)

    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for done in [pool.submit(one, m) for m in mutants]:
            done.result()
    return results, errors


def remembered(build, mutants, fresh):
    """What earlier runs found of the entries as they are now."""
    try:
        found = {} if fresh else json.loads((build / "mutants/results.json").read_text())
    except FileNotFoundError:
        found = {}
    return {m.name: found[m.name] for m in mutants if found.get(m.name, {}).get("entry") == m.entry()}


def write_table(path, mutants, found):
    def cell(text):
        return text.replace("|", "\\|")

    rows = [(m, found[m.name]) for m in mutants if m.name in found]
    survived = sum(not result["seen"] for _, result in rows)
    with open(path, "w") as out:
        print(f"{len(rows)} changes, {survived} survived, {sum(r['seconds'] for _, r in rows) / 60:.0f} minutes.\n", file=out)
        print("| change | in | from | to | seen by | s |\n| --- | --- | --- | --- | --- | ---: |", file=out)
        for m, result in rows:
            print(f"| {m.name} | {m.where} | `{cell(m.old)}` | `{cell(m.new) or ' '}` | "
                  f"{cell(result['seen'] or '**survived**')} | {result['seconds']:.0f} |", file=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--sample", type=int, default=0)
    parser.add_argument("--seed", default="")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--build", default="build")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--passing", action="store_true", help="the tests are known to pass without a change")
    parser.add_argument("--make", action="append", default=[], help="an argument of make, as CXX=g++")
    args = parser.parse_args()
    MAKE.extend(args.make)
    build = (ROOT / args.build).resolve()
    try:
        everything = read_list()
        mutants = chosen(everything, args)
        wrong = [str(error) for error in map(problem, mutants) if error]
        if wrong:
            raise ListError("\nerror: ".join(wrong))
        if args.check:
            print(f"mutants: {len(mutants)} changes, each at one place")
            return 0
        start = time.time()
        found = remembered(build, everything, args.fresh)
        if args.missing:
            mutants = [m for m in mutants if not found.get(m.name, {}).get("seen")]
        results, errors = run(mutants, args, build, found)
        write_table(build / "mutants/table.md", everything, found)
    except ListError as error:
        print(f"error: {error}")
        return 2
    survived = [name for name, seen in results.items() if not seen]
    for name in survived:
        print(f"survived: {name}")
    print(f"{len(results)} changes, {len(survived)} survived, {len(errors)} errors of the list, "
          f"{time.time() - start:.0f} s; {build / 'mutants/table.md'}")
    return 2 if errors else 1 if survived else 0


MAKE = []
ENV = dict(os.environ, OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "2"))
ENV.pop("MAKEFLAGS", None)
ENV.pop("MAKELEVEL", None)
sys.exit(main())
