"""The corpus of tests/faults/corpus and random mutations of it through every reader of foreign bytes; the long form
continues with libFuzzer where clang++ has it (half an hour a target, AddressSanitizer on)."""
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
environment = dict(os.environ, MIXREC_FUZZ_RUN=run, OMP_NUM_THREADS="1")
for target in sorted(os.listdir(CORPUS)):
    seeds = len(os.listdir(os.path.join(CORPUS, target)))
    # A schema's input is packed whole, the others are only read.
    budget = 150 if target == "schema" else 1500 if target == "score" else 4000
    mutations = max(1, budget * (50 if arguments.long else 1) // seeds)
    try:
        done = subprocess.run([replay, target, os.path.join(CORPUS, target), str(mutations), str(arguments.seed)],
                              env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=7200 if arguments.long else 120)
        said = done.stdout.decode(errors="replace")
        check(f"{target}: {said.splitlines()[-1] if said else ''}", done.returncode == 0, f"code {done.returncode}: {said[:1500]}")
        print(f"{target}: {said.splitlines()[-1] if said else 'nothing was said'}")
    except subprocess.TimeoutExpired:
        check(f"{target}: ends in time; the input is in /tmp/mixrec-fuzz-{target}", False)
engine = os.path.join(BUILD, "tests", "fuzz_engine")
if arguments.long and os.path.exists(engine):
    for target in sorted(os.listdir(CORPUS)):
        grown = work(f"corpus-{target}")
        shutil.copytree(os.path.join(CORPUS, target), grown)
        done = subprocess.run([engine, grown, "-max_total_time=1800", "-max_len=4096", "-timeout=20", "-rss_limit_mb=4096"],
                              env=dict(environment, MIXREC_FUZZ_TARGET=target), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = done.stdout.decode(errors="replace")
        runs = re.findall(r"#(\d+)", said)
        print(f"{target}: {runs[-1] if runs else 0} executions under libFuzzer")
        check(f"{target} under libFuzzer", done.returncode == 0, said[-1500:])
elif arguments.long:
    skip(f"libFuzzer: there is no {engine}; make fuzz-engine with clang++")
end()
