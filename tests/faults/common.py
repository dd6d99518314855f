"""What the fault programs share: running mixrec, small data, and counting.

Every program runs `mixrec` (MIXREC=PATH, default build/mixrec) as a user would and looks only at what a user sees:
files, exit codes, stdout, stderr.  It takes --long for the long form and --seed N, and ends with a line
"N passed, N failed, N skipped"; its exit code is 1 when anything failed.  However it ends, by an error, Ctrl-C or a
signal, it leaves no process, mount or folder behind.
"""
import argparse
import atexit
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIXREC = os.path.abspath(os.environ.get("MIXREC", os.path.join(ROOT, "build", "mixrec")))

parser = argparse.ArgumentParser()
parser.add_argument("--long", action="store_true", help="hours, not seconds")
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()
rng = random.Random(arguments.seed)

_counts = {"passed": 0, "failed": 0, "skipped": 0}


def check(what, right, detail=""):
    _counts["passed" if right else "failed"] += 1
    if not right:
        print(f"FAILED: {what}\n  {detail}"[:2000], flush=True)
    return right


def skip(what):
    _counts["skipped"] += 1
    print(f"skipped: {what}", flush=True)


def end():
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**_counts), flush=True)
    sys.exit(1 if _counts["failed"] else 0)


# In memory where there is such a folder: what is made here is synced file by file.
WORK = tempfile.mkdtemp(prefix="mixrec-faults-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


def _broken(*error):
    """An error of the program itself counts as a failure and is shown."""
    check("the program runs to its end", False, "".join(traceback.format_exception(*error)))
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**_counts), flush=True)


def _interrupted(number, _):
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    check(f"not interrupted by signal {number}", False)
    end()


@atexit.register
def _leave_nothing():
    with open("/proc/thread-self/children") as children:
        for child in children.read().split():
            os.kill(int(child), signal.SIGKILL)
            os.waitpid(int(child), 0)
    with open("/proc/self/mounts") as mounts:
        for place in [line.split()[1] for line in mounts]:
            if place.startswith(WORK):
                subprocess.run(["umount", place])
    shutil.rmtree(WORK, ignore_errors=True)


sys.excepthook = _broken
for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(one, _interrupted)


def work(name):
    return os.path.join(WORK, name)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def by_signal(self):
        return self.code < 0 or self.code in (134, 135, 136, 139)

    def __str__(self):
        return f"code {self.code}, stdout {self.out[:300]!r}, stderr {self.err[-600:]!r}"


def mixrec(*args, stdin=None, limits="", timeout=120, env=None, stdout=None):
    """Runs a command; `limits` is shell text in front of it ("ulimit -v 1000000;")."""
    environment = dict(os.environ, OMP_NUM_THREADS="2", **(env or {}))
    command = ["bash", "-c", limits + ' exec "$0" "$@"', MIXREC, *args] if limits else [MIXREC, *args]
    try:
        done = subprocess.run(command, input=stdin, stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=timeout, env=environment)
    except subprocess.TimeoutExpired as late:
        return Result(999, "", f"did not end in {timeout} s; {late.stderr}")
    return Result(done.returncode, (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace"))


def refused(result):
    """An error as it should be: exit code 1 or 2 and one sentence of sane length, no signal."""
    return result.code in (1, 2) and 0 < len(result.err) < 8000


def write_log(folder, rows=480, invert=False):
    """A small log with users, items that have a table, lists, numbers and two tasks."""
    os.makedirs(folder, exist_ok=True)
    lines = ["user,item,time,price,liked,bought"]
    state = random.Random(7)
    for n in range(rows):
        user, item = state.randrange(12), state.randrange(15)
        liked = (user * 7 + item * 3 + n % 5) % 3 == 0
        bought = (user + item) % 4 == 0
        if invert:
            liked, bought = not liked, not bought
        lines.append(f"u{user},i{item},{1_600_000_000 + n * 1440},{item * 1.5 + 0.25},{int(liked)},{int(bought)}")
    with open(os.path.join(folder, "log.csv"), "w") as out:
        out.write("\n".join(lines) + "\n")
    with open(os.path.join(folder, "items.csv"), "w") as out:
        out.write("item,colour,tags\n")
        for item in range(15):
            out.write(f"i{item},c{item % 4},{'|'.join(f't{t}' for t in range(item % 4))}\n")
    with open(os.path.join(folder, "schema.json"), "w") as out:
        json.dump(schema(), out, indent=1)
    return folder


def schema():
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "schema.json")) as text:
        return json.load(text)


TRAIN = ["--set", "model.name=mlp", "--set", "model.hidden=8", "--set", "data.batch_size=32", "--set",
         "train.epochs=3", "--set", "train.log_every=5", "--set", "train.checkpoint_every=3", "--set",
         "train.device=cpu", "--quiet"]


def train(data, out, *more, **options):
    return mixrec("train", "--data", data, "--out", out, *TRAIN, *more, **options)


def comparable(text):
    """Without numbers that depend on the clock, and without the run's id, which no other run has."""
    text = re.sub(r'"run":"[0-9a-f]{16}"', '"run":""', text)
    return re.sub(r'"(seconds|samples_per_second|train_seconds)":[^,}]*', r'"\1":0', text)


def read(path, mode="r"):
    with open(path, mode) as file:
        return file.read()


def run_content(run):
    """What two equal runs have in common."""
    content = {"result": comparable(read(os.path.join(run, "result.json"))),
               "metrics": comparable(read(os.path.join(run, "metrics.jsonl")))}
    # The header's metadata names the run; the values are what matters.
    best = read(os.path.join(run, "best.safetensors"), "rb")
    header = int.from_bytes(best[:8], "little")
    content["best"] = best[8 + header:]
    return content


def requests(lines):
    return ("\n".join(lines) + "\n").encode()
