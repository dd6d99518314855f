"""Memory, files and threads that the system refuses; a stdout that is lost; FIFOs and devices.  Whatever is refused,
the process ends by itself with an exit code and a sentence."""
from common import *

data = write_log(work("log"))
run = work("run")
first = train(data, run)
check("a run without limits", first.code == 0, first)
LINE = requests(['{"user": "u1", "time": 1600000000, "candidates": [{"item": "i1", "price": 2}]}'])


def ends_well(what, result):
    check(what, not result.by_signal and result.code in (0, 1, 2) and (result.code == 0 or result.err), result)


n = 0
for kilobytes in (range(40_000, 3_000_000, 40_000) if arguments.long else (60_000, 200_000, 500_000, 1_200_000)):
    n += 1
    limits = f"ulimit -v {kilobytes};"
    ends_well(f"ulimit -v {kilobytes}: eval", mixrec("eval", run, limits=limits))
    ends_well(f"ulimit -v {kilobytes}: score", mixrec("score", "--run", run, stdin=LINE, limits=limits))
    ends_well(f"ulimit -v {kilobytes}: train with many workers",
              train(data, work(f"v{n}"), "--set", "data.workers=200", limits=limits))
for files in (range(3, 80) if arguments.long else (4, 12, 30)):
    ends_well(f"ulimit -n {files}: eval", mixrec("eval", run, limits=f"ulimit -n {files};"))
    ends_well(f"ulimit -n {files}: train", train(data, work(f"n{files}"), limits=f"ulimit -n {files};"))
    shutil.rmtree(work(f"n{files}"), ignore_errors=True)
# The limit of processes does not hold for root, so another user runs these.
if os.geteuid() == 0 and shutil.which("setpriv"):
    os.chmod(WORK, 0o777)
    for thing in (data, run):
        subprocess.run(["chmod", "-R", "a+rwX", thing])
    for threads in ((1, 2, 3, 5, 9) if arguments.long else (1, 3)):
        as_user = f"ulimit -u {threads}; set -- setpriv --reuid 65533 --clear-groups \"$0\" \"$@\"; exec \"$@\";"
        out = work(f"u{threads}")
        ends_well(f"ulimit -u {threads}: train", train(data, out, "--threads", "4", "--set", "data.workers=8", limits=as_user))
        ends_well(f"ulimit -u {threads}: score", mixrec("score", "--run", run, "--threads", "4", stdin=LINE * 64, limits=as_user))
else:
    skip("ulimit -u: needs root and setpriv")

for command in (["eval", run], ["inspect", data], ["prepare", data], ["models"], ["--help"], ["train", "--help"],
                ["score", "--run", run], ["train", "--data", data, "--out", work("full"), *TRAIN],
                ["train", "--out", run, "--resume"], ["verify", run]):
    with open("/dev/full", "w") as full:
        lost = mixrec(*command, stdin=LINE, stdout=full)
    check(f"{' '.join(command[:2])} > /dev/full is an error", lost.code != 0 and not lost.by_signal and "stdout" in lost.err
          or "cannot write the answers" in lost.err, lost)
end()
