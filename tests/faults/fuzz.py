"""The corpus of tests/faults/corpus and random mutations of it through every reader of foreign bytes; the long form
continues with libFuzzer where `make fuzz-engine` has built it: half an hour per target with AddressSanitizer, or as many
seconds as MIXREC_FUZZ_SECONDS says, in the short form too."""
from common import *

BUILD = os.environ.get("BUILD", os.path.join(ROOT, "build"))
CORPUS = os.path.join(ROOT, "tests", "faults", "corpus")
replay = os.path.join(BUILD, "tests", "fuzz_replay")
run = work("run")
first = train(write_log(work("log")), run)
check("a run to score with", first.code == 0, first)
if not os.path.exists(replay):
    skip(f"fuzzing: there is no {replay}; make fuzz-build")
    end()
os.mkdir(work("fuzz"))
environment = dict(os.environ, MIXREC_FUZZ_RUN=run, MIXREC_FUZZ_FOLDER=work("fuzz"), OMP_NUM_THREADS="1")


def keep(target):
    """The input that ended a program, beside the programs, where there is one."""
    last = os.path.join(work("fuzz"), f"mixrec-fuzz-{target}")
    return shutil.copy(last, os.path.join(BUILD, "tests", f"fuzz-{target}-input")) if os.path.exists(last) else "above"


for target in sorted(os.listdir(CORPUS)):
    seeds = len(os.listdir(os.path.join(CORPUS, target)))
    # A schema's input is packed whole, the others are only read.
    budget = 1000 if target == "schema" else 10_000
    mutations = max(1, budget * (50 if arguments.long else 1) // seeds)
    try:
        done = subprocess.run([replay, target, os.path.join(CORPUS, target), str(mutations), str(arguments.seed)],
                              env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=7200 if arguments.long else 120)
        said = done.stdout.decode(errors="replace")
        check(f"{target}: {said.splitlines()[-1] if said else ''}", done.returncode == 0, f"code {done.returncode}, the input is {'' if done.returncode == 0 else keep(target)}: {said[:1500]}")
        print(f"{target}: {said.splitlines()[-1] if said else 'nothing was said'}")
    except subprocess.TimeoutExpired:
        check(f"{target}: ends in time", False, f"the input is {keep(target)}")
seconds = int(os.environ.get("MIXREC_FUZZ_SECONDS", 1800 if arguments.long else 0))
engine = os.path.join(BUILD, "tests", "fuzz_engine")
if seconds and os.path.exists(engine):
    for target in sorted(os.listdir(CORPUS)):
        grown = work(f"corpus-{target}")
        shutil.copytree(os.path.join(CORPUS, target), grown)
        # What it finds stays beside the engine: "Test unit written to ...".
        found = os.path.join(BUILD, "tests", f"fuzz-{target}-")
        # A size that no memory holds is for the readers to refuse: the allocator then fails as it does elsewhere.
        done = subprocess.run([engine, grown, f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=4096", f"-artifact_prefix={found}"],
                              env=dict(environment, MIXREC_FUZZ_TARGET=target, ASAN_OPTIONS="allocator_may_return_null=1"),
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = done.stdout.decode(errors="replace")
        runs = re.findall(r"#(\d+)", said)
        print(f"{target}: {runs[-1] if runs else 0} executions under libFuzzer")
        check(f"{target} under libFuzzer", done.returncode == 0, said[-1500:])
elif seconds:
    skip(f"libFuzzer: there is no {engine}; make fuzz-engine (clang++ with its runtime)")
end()
