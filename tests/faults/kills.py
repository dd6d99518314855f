"""kill -9 at random moments of packing, choosing, refitting and writing: a run that is resumed until it is finished
has the weights, metrics and result of one that nobody killed."""
import signal
import subprocess
import time

from common import *

data = write_log(work("log"))
REFIT = ["--set", "train.refit=true", "--set", "train.ema=0.9"]


def command(out, resume, source):
    return [MIXREC, "train", "--data", source, "--out", out, *TRAIN, *REFIT] + (["--resume"] if resume else [])


def killed_run(name, source, kills):
    """Trains with so many kills on the way; the time of each is drawn from the time a whole run takes."""
    out, killed = work(name), 0
    while True:
        resume = os.path.exists(os.path.join(out, "config.json"))
        child = subprocess.Popen(command(out, resume, source), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if killed < kills:
            time.sleep(rng.uniform(0, whole_seconds * 0.8))
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                killed += 1
        error = child.communicate()[1].decode(errors="replace")
        if child.returncode == 0:
            return out, killed
        if child.returncode != -signal.SIGKILL:
            check(f"{name}: a killed run goes on", False, f"code {child.returncode}: {error}")
            return None, killed


start = time.time()
first = train(data, work("whole"), *REFIT)
whole_seconds = time.time() - start
check("an uninterrupted run", first.code == 0, first)
expected = run_content(work("whole"))
for n in range(1000 if arguments.long else 20):
    # Every third packs the data too.
    source = write_log(work(f"log{n}")) if n % 3 == 0 else data
    out, killed = killed_run(f"run{n}", source, 1 + n % 4)
    if out:
        got = run_content(out)
        for part in expected:
            check(f"run {n}, {killed} kills: {part}", got[part] == expected[part], f"{got[part]!r:.400}")
        left = [name for name in os.listdir(out) if ".tmp" in name]
        check(f"run {n}: no temporary files", not left, left)
        shutil.rmtree(out)
end()
