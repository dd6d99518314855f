"""Nested, huge and odd input to everything that reads text: requests, schemas, configurations, options, expressions."""
from common import *

data = write_log(work("log"))
run = work("run")
check("a run", train(data, run).code == 0)
DEEP = 3_000_000 if arguments.long else 200_000
GOOD = '{"user": "u1", "time": 1600000000, "candidates": [{"item": "i1", "price": 2}]}'
SMALL_STACK = "ulimit -s 1024;"


def deep(opening, closing, inner="1", levels=DEEP):
    return opening * levels + inner + closing * levels


lines = [
    deep("[", "]"), deep('{"a":', "}"), "[" * DEEP, '{"user":' + deep("[", "]") + ', "candidates": ["i1"]}',
    '{"candidates": ' + deep("[", "]") + "}", '{"user": "u1", "time": 1600000000, "values": {"price": ' + deep("[", "]") + '}, "candidates": ["i1"]}',
    '{"' + "k" * DEEP + '": 1, "candidates": ["i1"]}', '{"user": "' + "u" * DEEP + '", "candidates": 7}',
    '{"user": "u1", "user": "u2", "candidates": ["i1"]}', '{"candidates": [{"item": "i1", "price": 1, "price": 2}]}',
    '{"user": "u1", "time": 1e309, "candidates": ["i1"]}', "\x00\x01", '{"user": "\\ud800"}', "nul", '{"candidates": [null]}',
]
got = mixrec("score", "--run", run, stdin=requests([GOOD] + [l for line in lines for l in (line, GOOD)]), limits=SMALL_STACK)
answers = got.out.splitlines()
check("score ends by itself", got.code == 0, got)
if check("every line has an answer", len(answers) == 1 + 2 * len(lines), f"{len(answers)}: {got}"):
    parsed = [json.loads(a) for a in mixrec("score", "--run", run, stdin=requests([GOOD] + [l for line in lines for l in (line, GOOD)])).out.splitlines()]
    for n, line in enumerate(lines):
        check(f"line {line[:30]!r} is an error", "error" in parsed[1 + 2 * n] and len(parsed[1 + 2 * n]["error"]) < 1000, str(parsed[1 + 2 * n])[:300])
        check("its neighbour has its numbers", parsed[2 + 2 * n].get("probabilities") == parsed[0]["probabilities"], parsed[2 + 2 * n])
raw = requests([GOOD]) + b'{"user": "\xff\xfe", "candidates": ["i1"]}\n' + requests([GOOD])
got = mixrec("score", "--run", run, stdin=raw)
check("bytes that are no text touch no other line", got.code == 0 and len(got.out.splitlines()) == 3, got)


def schema_with(change):
    folder = write_log(work("changed"))
    text = json.dumps(schema())
    with open(os.path.join(folder, "schema.json"), "w") as out:
        out.write(change(text))
    return mixrec("inspect", folder, limits=SMALL_STACK)


for what, change in {
        "nested lists": lambda t: deep("[", "]"), "a nested value": lambda t: t.replace('"width": 4', '"width": ' + deep('{"a":', "}")),
        "a nested unknown key": lambda t: t.replace('"width": 4', '"width": 4, "b": ' + deep("[", "]")),
        "parentheses": lambda t: t.replace("liked == 1", deep("(", ")", "liked")), "signs": lambda t: t.replace("liked == 1", "-" * DEEP + "liked"),
        "a long sum": lambda t: t.replace("liked == 1", "liked" + " + liked" * DEEP), "nots": lambda t: t.replace("liked == 1", "!" * DEEP + "liked"),
        "a long key": lambda t: t.replace('"width"', '"' + "w" * DEEP + '"'), "a key twice": lambda t: t.replace('"width": 4', '"width": 4, "width": 8'),
        "1e309": lambda t: t.replace('"width": 4', '"width": 1e309'), "quantiles": lambda t: t.replace('"quantiles": 4', '"quantiles": 1000000000000000000'),
        "width": lambda t: t.replace('"width": 4', '"width": 1000000000'), "length": lambda t: t.replace('"length": 5', '"length": 1000000000000'),
        "loss_weight": lambda t: t.replace('"label": "bought == 1"', '"label": "bought == 1", "loss_weight": 0'),
        "null": lambda t: "null", "nothing": lambda t: "", "a number": lambda t: "7"}.items():
    got = schema_with(change)
    check(f"a schema with {what}", refused(got) and "schema.json" in got.err or what in ("parentheses", "signs", "a long sum", "nots") and refused(got), got)


def config_with(text):
    with open(work("config.json"), "w") as out:
        out.write(text)
    return mixrec("train", "--config", work("config.json"), "--data", data, "--out", work("none"), *TRAIN, limits=SMALL_STACK)


for text in (deep("[", "]"), '{"train": ' + deep('{"a":', "}") + "}", '{"model": {"layers": ' + deep("[", "]") + "}}", '{"' + "k" * DEEP + '": 1}',
             '{"train": {"epochs": 1, "epochs": 2}}', '{"optimizer": {"lr": 1e309}}', '{"model": {"name": "mlp", "dropout": "' + "v" * DEEP + '"}}',
             '{"data": {"overrides": {"a": ' + deep("[", "]") + "}}}"):
    got = config_with(text)
    check(f"a configuration {text[:40]!r}", refused(got), got)
for option in ("train.epochs=0", "train.epochs=-1", "train.threads=4294967297", "train.threads=1e15", "train.threads=-1", "schedule.step_factor=-1",
               "model.table_deviation=-1", "model.hidden=-5", "model.hidden=1000000000000", "optimizer.beta1=1", "optimizer.lr=1e309",
               "train.seed=-1", "data.workers=1e9", "data.batch_size=0", 'data.tasks=["liked","liked"]', "a" + ".a" * 30_000 + "=1",
               "model.hidden=" + deep("[", "]", levels=20_000), "x" * 100_000 + "=1"):
    got = mixrec("train", "--data", data, "--out", work("none"), *TRAIN, "--set", option)
    check(f"--set {option[:40]}", refused(got), got)
    if option.startswith("optimizer.beta1"):
        check("the message about beta1 = 1 is no contradiction", "1 is outside [0, 1]" not in got.err, got)
for arguments_ in (["score", "--run", run, "--in", data], ["predict", run, "--out", data], ["eval", data], ["simulate", "--out", data],
                   ["simulate", "--out", work("s"), "--seed", "-1"], ["simulate", "--out", work("s"), "--rows", "1000000000000000000"],
                   ["eval", run, "--data", work("absent")], ["train", "--data", data, "--out", os.path.join(data, "log.csv")]):
    got = mixrec(*arguments_, timeout=20)
    check(f"{' '.join(arguments_)[:60]}", refused(got), got)
os.mkfifo(os.path.join(write_log(work("changed")), "pipe"))
os.symlink("/etc/passwd", work("changed/link"))
os.symlink("log.csv", work("changed/inside"))
got = schema_with(lambda t: t.replace('"files": "log.csv"', '"files": "inside"'))
check("a link inside the folder is a file of it", got.code == 0, got)
for files in ('"pipe"', '"link"', '"../log/log.csv"', f'"{data}/log.csv"', '"/dev/zero"', '"../../../../../../etc/passwd"', '["log.csv", "log.csv"]', '"."'):
    got = schema_with(lambda t: t.replace('"files": "log.csv"', f'"files": {files}'))
    check(f"a log {files}", refused(got), got)
got = mixrec("prepare", "--outside", work("changed"), timeout=20)
check("--outside does not open what is no file", refused(got), got)
with open(work("changed/schema.json"), "w") as out:
    out.write(json.dumps(schema()).replace('"files": "log.csv"', '"files": "../log/log.csv"'))
got = mixrec("prepare", "--outside", work("changed"))
check("--outside opens a file elsewhere", got.code == 0, got)
end()
