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


def hits(what, sentence, result):
    """The limit was reached, and its sentence was said: a limit that nothing reaches tries nothing."""
    check(f"{what}: '{sentence}'", refused(result) and sentence in result.err, result)


THREADS = "threads can be started"
lines = work("lines")
with open(lines, "wb") as out:
    out.write(LINE * 256)

# Memory: from a size at which the program begins, each step is refused or done; some are refused for memory.
begins = next((k for k in range(4_000, 64_000, 500) if mixrec("--version", limits=f"ulimit -v {k};").code == 0), 0)
check("the program begins in less than 64 MB", begins)
refusals = 0
for kilobytes in range(begins, begins + 16_000, 500 if arguments.long else 2_000):
    limits = f"ulimit -v {kilobytes};"
    for what, got in (("eval", mixrec("eval", run, limits=limits)), ("score", mixrec("score", "--run", run, stdin=LINE, limits=limits)),
                      ("train", train(data, work("v"), limits=limits))):
        ends_well(f"ulimit -v {kilobytes}: {what}", got)
        refusals += got.code != 0
        shutil.rmtree(work("v"), ignore_errors=True)
check("some of the limits of memory were reached", refusals)
check("2 GB are enough", mixrec("eval", run, limits="ulimit -v 2000000;").code == 0)

# Threads whose stacks find no room: those that were started are joined, then the sentence is said.
stacks = "ulimit -s 1000000; ulimit -v 8000000;"
hits("workers without room for stacks", f"of data.workers = 200 {THREADS}", train(data, work("s1"), "--set", "data.workers=200", limits=stacks))
hits("a team without room for stacks", THREADS, train(data, work("s2"), "--threads", "32", "--set", "data.batch_size=400", limits=stacks))
hits("scoring without room for stacks", THREADS, mixrec("score", "--run", run, "--threads", "32", "--in", lines, limits=stacks))

# Files.
hits("ulimit -n 4: eval", "Too many open files", mixrec("eval", run, limits="ulimit -n 4;"))
hits("ulimit -n 6: train", "Too many open files", train(data, work("n6"), limits="ulimit -n 6;"))
check("ulimit -n 64: eval", mixrec("eval", run, limits="ulimit -n 64;").code == 0)
for files in range(4, 80) if arguments.long else (5, 8, 12):
    ends_well(f"ulimit -n {files}: eval", mixrec("eval", run, limits=f"ulimit -n {files};"))
    ends_well(f"ulimit -n {files}: train", train(data, work(f"n{files}"), limits=f"ulimit -n {files};"))
    shutil.rmtree(work(f"n{files}"), ignore_errors=True)

# The limit of processes does not hold for root, so another user runs these.
if os.geteuid() == 0 and shutil.which("setpriv"):
    os.chmod(WORK, 0o777)
    for thing in (data, run, lines):
        subprocess.run(["chmod", "-R", "a+rwX", thing])
    # A user of this program's own: the limit counts what others run as the same one.
    user = 65_000 - os.getpid() % 20_000
    other_user = f"set -- setpriv --reuid {user} --clear-groups \"$0\" \"$@\"; exec \"$@\";"
    check("another user scores", mixrec("score", "--run", run, "--threads", "4", "--in", lines, limits=other_user).code == 0)
    for threads in ((1, 2, 3, 4) if arguments.long else (1, 3)):
        as_user = f"ulimit -u {threads}; {other_user}"
        hits(f"ulimit -u {threads}: train", THREADS, train(data, work(f"u{threads}"), "--threads", "4", limits=as_user))
        hits(f"ulimit -u {threads}: workers", THREADS, train(data, work(f"w{threads}"), "--threads", "1", "--set", "data.workers=8", limits=as_user))
        hits(f"ulimit -u {threads}: score", THREADS, mixrec("score", "--run", run, "--threads", "4", "--in", lines, limits=as_user))
else:
    skip("ulimit -u: needs root, who lets another user run into it, and setpriv")

for command in (["eval", run], ["inspect", data], ["prepare", data], ["models"], ["--help"], ["train", "--help"],
                ["score", "--run", run], ["train", "--data", data, "--out", work("full"), *TRAIN],
                ["train", "--out", run, "--resume"], ["verify", run]):
    with open("/dev/full", "w") as full:
        lost = mixrec(*command, stdin=LINE, stdout=full)
    check(f"{' '.join(command[:2])} > /dev/full is an error", lost.code != 0 and not lost.by_signal and "stdout" in lost.err
          or "cannot write the answers" in lost.err, lost)
end()
