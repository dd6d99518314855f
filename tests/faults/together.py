"""Two processes at once on one data folder and on one run folder."""
import subprocess

from common import *


def at_once(*commands):
    children = [subprocess.Popen([MIXREC, *c], stdout=subprocess.PIPE, stderr=subprocess.PIPE) for c in commands]
    return [Result(child.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
            for child, (out, err) in [(child, child.communicate()) for child in children]]


rounds = 100 if arguments.long else 10
alone = write_log(work("alone"))
check("a run alone", train(alone, work("run-alone")).code == 0)
expected = run_content(work("run-alone"))
for n in range(rounds):
    data = write_log(work(f"log{n}"))
    for result in at_once(["prepare", data], ["prepare", data], ["inspect", data]):
        check(f"round {n}: preparing at once", result.code == 0, result)
    left = [name for name in os.listdir(os.path.join(data, ".mixrec")) if ".tmp" in name]
    check(f"round {n}: no temporary folder is left", not left, left)
    run = work(f"run{n}")
    results = at_once(*[["train", "--data", data, "--out", run, *TRAIN]] * 2)
    won = [r for r in results if r.code == 0]
    lost = [r for r in results if r.code != 0]
    check(f"round {n}: one of two trains", len(won) == 1 and all(refused(r) for r in lost), [str(r) for r in results])
    results = at_once(*[["train", "--data", data, "--out", run, *TRAIN, "--resume"]] * 2)
    check(f"round {n}: both are told of the finished run, or one holds it",
          all(r.code == 0 or "is being trained by process" in r.err for r in results), [str(r) for r in results])
    got = run_content(run)
    check(f"round {n}: the run is one run", all(got[p] == expected[p] for p in ("best", "metrics", "result")), got["metrics"][:600])
    for folder in (data, run):
        shutil.rmtree(folder)
end()
