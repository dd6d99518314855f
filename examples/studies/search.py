#!/usr/bin/env python3
"""Searches a configuration on the validation rows of a data set; the test rows are read once, by --final.

  python3 examples/studies/search.py --space examples/studies/kuairand_space.json \\
      --config examples/configs/kuairand/mixformer.json --data DIR --out searches/kuairand --jobs 8 --minutes 30
  python3 examples/studies/search.py ... --final 5

A random search with successive halving: each rung trains fewer configurations with more seeds, and the space file says
how many.  Every task has its own ranking, so that models of one task compete with models of several.  A run is one
`mixrec train` with train.refit and train.test off; its line goes to OUT/search.jsonl, and a search that is started again
takes finished runs from there.  OUT/search.md holds the tables.  --final N trains the winner of every task afresh on the
whole training period with seeds 1 to N and evaluates each on the test rows, once.

A space file (comments allowed) holds: `axes`, section.key or any name -> choices (an object of several section.key sets
them together) or {"log": [low, high]}, {"uniform": [low, high]}; `schema`, name -> {label: edits}; `keep`, the
probability that an axis stays as the base configuration has it, also in an axis {"keep": .., "choices": ..};
`score`, weights of validation metrics; `rungs`.  Edits of a schema: {"drop": [names]}, {"set": [names], "to": {..}},
{"add": {group: [features]}}, {"merge": {..}}; names may hold *.  Python 3.8 or newer, nothing else.
"""
import argparse
import collections
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time

from space import Space, find_schema, read_json, say, short_hash

# ---- Running. ----

Job = collections.namedtuple("Job", "kind rung point seed sets")


class Runner:
    """Trains jobs in slots, each with a device; every finished run is one line of OUT/search.jsonl."""

    def __init__(self, options, space):
        self.options, self.space = options, space
        self.base = [read_json(options.config), space.schema]
        self.log_path = os.path.join(options.out, "search.jsonl")
        self.records = {}
        self.lock = threading.Lock()
        self.packing = collections.defaultdict(threading.Lock)
        self.seconds = {}
        os.makedirs(os.path.join(options.out, "runs"), exist_ok=True)
        os.makedirs(os.path.join(options.out, "schemas"), exist_ok=True)
        self.read_log()

    def read_log(self):
        """What earlier searches in this folder have done; a line that a crash cut off goes, failures are tried again."""
        if not os.path.exists(self.log_path):
            return
        with open(self.log_path, encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
        with open(self.log_path, "w", encoding="utf-8") as file:
            file.writelines(lines)
        for record in map(json.loads, lines):
            if "error" not in record:
                self.records[record["key"]] = record

    def key(self, job):
        return short_hash([self.base, self.space.settings(job.point), self.space.schema_of(job.point), job.seed, job.sets,
                           job.kind])

    def write_schema(self, point):
        schema = self.space.schema_of(point)
        path = os.path.join(self.options.out, "schemas", short_hash(schema) + ".json")
        with self.lock:
            if not os.path.exists(path):
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(schema, file, indent=1)
        return path, schema

    def prepare(self, path, schema):
        """Packs the data once for every schema that needs another form, though many runs ask at the same time."""
        free = {"name", "width", "unknown_rate", "length", "loss_weight", "kept_negatives"}

        def bare(value):
            if isinstance(value, dict):
                return {k: bare(v) for k, v in value.items() if k not in free}
            return [bare(v) for v in value] if isinstance(value, list) else value

        with self.lock:
            packing = self.packing[short_hash(bare(schema))]
        with packing:
            subprocess.run([self.options.mixrec, "prepare", self.options.data, "--schema", path], check=True,
                           capture_output=True, text=True)

    def train(self, job, device):
        run = os.path.join(self.options.out, "runs", self.key(job))
        shutil.rmtree(run, ignore_errors=True)
        path, schema = self.write_schema(job.point)
        sets = {"data.schema": path, "data.workers": 0 if device == "cpu" else 1, "train.checkpoint_every": 0,
                "train.refit": job.kind == "final", "train.test": job.kind == "final"}
        sets.update(self.space.settings(job.point))
        sets.update(job.sets)
        command = [self.options.mixrec, "train", "--quiet", "--config", self.options.config, "--data",
                   self.options.data, "--out", run, "--seed", str(job.seed), "--threads", str(self.options.threads)]
        if device:
            command += ["--device", device]
        for name, value in sets.items():
            command += ["--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
        start = time.monotonic()
        try:
            self.prepare(path, schema)
            done = subprocess.run(command, check=True, capture_output=True, text=True,
                                  timeout=60 * self.options.run_minutes or None)
        except subprocess.TimeoutExpired:
            return {"error": f"given up after {self.options.run_minutes:g} minutes", "slow": True}
        except subprocess.CalledProcessError as error:
            return {"error": (error.stderr or "").strip()[-500:] or str(error)}
        finally:
            if not self.options.keep_runs:
                shutil.rmtree(run, ignore_errors=True)
        result = json.loads(done.stdout)
        named = ("auc", "uauc", "log_loss")
        record = {part: {task: {name: metrics[name] for name in named} for task, metrics in result[part].items()}
                  for part in ("validation", "test") if part in result}
        return {"seconds": round(time.monotonic() - start, 2), "steps": result["steps"], "params": result["params"],
                **record}

    def run(self, jobs, deadline):
        """Runs what is not in the log yet, in this order, as far as the deadline allows; gives all that is done."""
        keys = [self.key(job) for job in jobs]
        waiting = collections.deque(job for job, key in zip(jobs, keys) if key not in self.records)
        total, tried, failures = len(waiting), collections.Counter(), collections.Counter()
        begun = time.monotonic()

        def worth_it(device):
            """Not when the run would end late: after the deadline, or when faster devices have done all that waits."""
            mine, others = self.seconds.get(device, 0), [self.seconds[d] for d in self.seconds if d != device]
            fastest = not others or min(others) >= mine
            if time.monotonic() + (mine / 2 if fastest else mine) > deadline:
                return False
            if fastest:
                return True
            slots = max(1, sum(1 for d in self.options.slots if d != device))
            return len(waiting) * min(others) / slots > mine

        def slot(device):
            while failures[device] < 6:  # in a row: then it is the device, not a configuration
                with self.lock:
                    if not waiting or not worth_it(device):
                        return
                    job = waiting.popleft()
                record = self.train(job, device)
                with self.lock:
                    key = self.key(job)
                    if "error" in record and "slow" not in record:
                        tried[key] += 1
                        failures[device] += 1
                        say(f"failed ({device or 'auto'}): {record['error']}")
                        if tried[key] < 2:
                            waiting.append(job)
                            continue
                    elif "error" not in record:
                        failures[device] = 0
                        self.seconds[device] = 0.7 * self.seconds.get(device, record["seconds"]) + 0.3 * record["seconds"]
                    record = {"key": key, "kind": job.kind, "rung": job.rung, "seed": job.seed, "point": job.point,
                              "sets": job.sets, "device": device, **record}
                    if "error" not in record:
                        self.records[key] = record
                    with open(self.log_path, "a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")

        threads = [threading.Thread(target=slot, args=(device,), daemon=True) for device in self.options.slots]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        finished = total - len(waiting)
        pace = ", ".join(f"{d or 'auto'} {s:.1f} s a run" for d, s in self.seconds.items())
        say(f"{finished} of {total} runs in {time.monotonic() - begun:.0f} s ({pace})")
        return [self.records[key] for key in keys if key in self.records]


# ---- Ranking. ----


class Entry:
    """One configuration with its runs at one rung."""

    def __init__(self, point, records, task, space):
        self.point, self.task = point, task
        self.metrics = [record["validation"][task] for record in records]
        self.score = statistics.mean(space.score(m) for m in self.metrics)


def rank(records, space, seeds):
    """{task: entries, best first}: configurations that have run with all of the seeds."""
    by_point = collections.defaultdict(dict)
    for record in records:
        by_point[json.dumps(record["point"], sort_keys=True)][record["seed"]] = record
    ranking = collections.defaultdict(list)
    for runs in by_point.values():
        runs = list(runs.values())
        if len(runs) < seeds:
            continue
        for task in runs[0]["validation"]:
            ranking[task].append(Entry(runs[0]["point"], runs, task, space))
    return {task: sorted(entries, key=lambda e: -e.score) for task, entries in ranking.items()}


def unique(points):
    return list({json.dumps(point, sort_keys=True): point for point in points}.values())


def search(options, space, runner):
    rng = random.Random(options.seed)
    start, ranking, spent = time.monotonic(), {}, 0.0
    for index, rung in enumerate(space.rungs):
        spent += space.shares[index]
        deadline = start + 60 * options.minutes * spent if options.minutes else math.inf
        best = unique(entries[place].point for place in range(rung.get("best", 0)) for entries in ranking.values()
                      if place < len(entries))
        points = unique(best + [{}])  # the base configuration is in every table
        for _ in range(20 * rung.get("new", 0)):
            if len(points) > len(best) + rung.get("new", 0):
                break
            points = unique(points + [space.near(best, rng) if best else space.draw(rng)])
        seeds = rung.get("seeds", 1)
        say(f"rung {index + 1} of {len(space.rungs)}: {len(points)} configurations, {seeds} seeds each")
        # Configuration by configuration: what a deadline cuts off is then whole configurations, the new ones.
        jobs = [Job("search", index, point, seed, rung.get("set", {})) for point in points
                for seed in range(1, seeds + 1)]
        now = rank(runner.run(jobs, deadline), space, seeds)
        if not now:
            say("no configuration finished this rung; the ranking of the one before stands")
            break
        ranking.update(now)
    return ranking


# ---- Reports. ----


def spread(values):
    """.7483 ± .0005, the standard deviation over seeds."""
    text = lambda value: f"{value:.4f}".lstrip("0")
    mean = text(statistics.mean(values))
    return f"{mean} ± {text(statistics.stdev(values))}" if len(values) > 1 else mean


def point_text(point):
    one = lambda axis, value: (json.dumps(value).strip("{}").replace('"', "") if isinstance(value, dict)
                               else f"{axis} {value if isinstance(value, str) else json.dumps(value)}")
    return "; ".join(one(axis, value) for axis, value in point.items()).replace("|", "\\|") or "the base configuration"


def table_of_ranking(task, entries, count):
    lines = [f"### {task}, validation rows", "", "| rank | seeds | AUC | UAUC | score | changed in the base configuration |",
             "|---|---|---|---|---|---|"]
    for place, e in enumerate(entries[:count], 1):
        auc, uauc = ([m[name] for m in e.metrics] for name in ("auc", "uauc"))
        lines.append(f"| {place} | {len(e.metrics)} | {spread(auc)} | {spread(uauc)} | {e.score:.4f} | {point_text(e.point)} |")
    return lines + [""]


def table_of_effects(records, space):
    """Mean score of the first rung's runs with each value, less the mean of all: each task in a column."""
    first = [r for r in records if r["kind"] == "search" and r["rung"] == 0]
    tasks = sorted({task for r in first for task in r["validation"]})
    lines = ["### What single values did in the first rung", "",
             "Mean score with the value, less that of all runs, × 10000 (number of runs).", "",
             "| axis | value | " + " | ".join(tasks) + " |", "|---|---|" + "---|" * len(tasks)]
    groups = collections.defaultdict(lambda: collections.defaultdict(list))
    everything = collections.defaultdict(list)
    for record in first:
        for task, metrics in record["validation"].items():
            score = space.score(metrics)
            if not math.isfinite(score):
                continue
            everything[task].append(score)
            for axis in space.names():
                value = record["point"].get(axis)
                text = "as the base" if value is None else point_text({axis: value}).replace(axis + " ", "", 1)
                choices = space.axes.get(axis)
                if value is not None and isinstance(choices, dict) and "choices" not in choices:
                    low, high = choices.get("log") or choices["uniform"]
                    middle = math.sqrt(low * high) if "log" in choices else (low + high) / 2
                    text = f"{'below' if value < middle else 'above'} {middle:.2g}"
                groups[axis, text][task].append(score)
    for axis, text in sorted(groups, key=lambda g: (space.names().index(g[0]), g[1] != "as the base", g[1])):
        cells = [f"{1e4 * (statistics.mean(s) - statistics.mean(everything[t])):+.0f} ({len(s)})" if s else ""
                 for t in tasks for s in [groups[axis, text].get(t, [])]]
        lines.append(f"| {axis} | {text} | " + " | ".join(cells) + " |")
    return lines + [""]


def write_reports(options, lines):
    text = "\n".join(lines)
    with open(os.path.join(options.out, "search.md"), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return text


def chosen_path(options):
    return os.path.join(options.out, "chosen.json")


def final(options, space, runner):
    """The winners on the test rows: the only place where these are looked at."""
    with open(chosen_path(options), encoding="utf-8") as file:
        chosen = json.load(file)
    points = unique(chosen.values())
    seeds = range(1, options.final + 1)
    runner.run([Job("final", 0, point, seed, {}) for seed in seeds for point in points], math.inf)
    lines = ["### Test rows", "", f"Trained afresh on the whole training period; mean and standard deviation of "
             f"{options.final} seeds.", "", "| task | seeds | AUC | UAUC | log loss | configuration |",
             "|---|---|---|---|---|---|"]
    for task, point in chosen.items():
        runs = [runner.records.get(runner.key(Job("final", 0, point, seed, {}))) for seed in seeds]
        tests = [run["test"][task] for run in runs if run]
        if tests:
            cells = " | ".join(spread([t[name] for t in tests]) for name in ("auc", "uauc", "log_loss"))
            lines.append(f"| {task} | {len(tests)} | {cells} | {point_text(point)} |")
    text = "\n".join(lines)
    with open(os.path.join(options.out, "final.md"), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    print(text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", required=True, help="what may change (JSON)")
    parser.add_argument("--config", required=True, help="the base configuration")
    parser.add_argument("--data", required=True, help="folder of the data set")
    parser.add_argument("--out", required=True, help="folder of the search; an existing one is continued")
    parser.add_argument("--mixrec", default="build/mixrec", help="the program (default build/mixrec)")
    parser.add_argument("--device", default="", help="of the runs, or several with commas (cuda,cpu); default: mixrec's")
    parser.add_argument("--jobs", default="1", help="runs side by side, for each device (8 or 8,4)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a run")
    parser.add_argument("--minutes", type=float, default=0, help="of the search, shared by its rungs; 0 = no limit")
    parser.add_argument("--run-minutes", type=float, default=0, help="after which a run is given up; 0 = never")
    parser.add_argument("--seed", type=int, default=1, help="of the configurations that are drawn")
    parser.add_argument("--final", type=int, default=0, metavar="SEEDS", help="read the test rows with the winners")
    parser.add_argument("--keep-runs", action="store_true", help="keep the run folders")
    options = parser.parse_args()
    devices, jobs = options.device.split(","), [int(n) for n in options.jobs.split(",")]
    if len(devices) != len(jobs):
        parser.error(f"--jobs names {len(jobs)} numbers, --device {len(devices)} devices")
    options.slots = [device for device, count in zip(devices, jobs) for _ in range(count)]
    return options


def main():
    options = arguments()
    space = Space(options.space, find_schema(options.config, options.data))
    runner = Runner(options, space)
    if options.final:
        return final(options, space, runner)
    ranking = search(options, space, runner)
    if not ranking:
        sys.exit("search.py: no run finished; the log is " + runner.log_path)
    with open(chosen_path(options), "w", encoding="utf-8") as file:
        json.dump({task: entries[0].point for task, entries in ranking.items()}, file, indent=1)
    lines = [line for task, entries in sorted(ranking.items()) for line in table_of_ranking(task, entries, 10)]
    print(write_reports(options, lines + table_of_effects(runner.records.values(), space)))


if __name__ == "__main__":
    main()
