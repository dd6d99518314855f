"""One changed byte, or a lost end, in every file of a packed form and of a run: each evaluation gives the same numbers or
a refusal that names the file; never other numbers, never a signal."""
from common import *

data = write_log(work("log"))
run = work("run")
check("a run", train(data, run).code == 0)
LINES = requests(['{"user": "u1", "time": 1600000000, "candidates": [{"item": "i1", "price": 2}, "i2"], "history": ["i3"]}',
                  '{"user": "u9", "time": 1600000900, "candidates": ["i7"]}'])


def numbers():
    evaluation = mixrec("eval", run)
    scores = mixrec("score", "--run", run, stdin=LINES)
    return evaluation, scores


def files(folder):
    return sorted(os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)


whole = numbers()
check("an evaluation", whole[0].code == 0, whole[0])
check("scores", whole[1].code == 0, whole[1])
# The log itself may change, and is then another data set; what the program keeps for itself may not.
kept = [f for f in files(os.path.join(data, ".mixrec"))]
mine = [f for f in files(run) if not f.endswith(("metrics.jsonl", "result.json", ".lock")) and "tfevents" not in f]
outcomes = {"same": 0, "refused": 0, "made again": 0}
for path in kept + mine:
    before = read(path, "rb")
    # Weights are many numbers, of which one evaluation shows few.
    draws = 40 if arguments.long else 16 if path.endswith("best.safetensors") else 1
    spots = {0, len(before) // 2, len(before) - 1} | {rng.randrange(len(before)) for _ in range(draws)} if before else set()
    for spot in sorted(spots):
        for damage in ("flip", "cut") if spot == len(before) // 2 else ("flip",):
            changed = bytearray(before)
            if damage == "flip":
                changed[spot] ^= 1 << rng.randrange(8)
            else:
                del changed[spot:]
            with open(path, "wb") as out:
                out.write(changed)
            for got, right, what in zip(numbers(), whole, ("eval", "score")):
                name = os.path.relpath(path, WORK)
                same = got.code == 0 and got.out == right.out
                # A packed form may be found wanting and be made again, or the file may be named.
                # A configuration is a text that people may edit: what it says is refused for what it says.
                named = refused(got) and (path.endswith("config.json") or os.path.basename(path) in got.err or os.path.basename(os.path.dirname(path)) in got.err)
                outcomes["same" if same else "refused"] += 1
                check(f"{what}: {damage} byte {spot} of {len(before)} in {name}", same or named, got)
            # What was made again is the program's, what was refused is put back.
            if os.path.isdir(os.path.dirname(path)):
                with open(path, "wb") as out:
                    out.write(before)
# A configuration that was edited and reads as one is refused for its hash, which the run and its checkpoints carry.
path = os.path.join(run, "config.json")
before = read(path)
for key, value in (("lr", 0.5), ("epochs", 4), ("seed", 99), ("batch_size", 64)):
    changed = re.sub(rf'("{key}": *)[0-9.eE+-]+', rf"\g<1>{value}", before)
    check(f"config.json has {key}", changed != before, before)
    with open(path, "w") as out:
        out.write(changed)
    for got in (*numbers(), mixrec("predict", run, "--out", work("p.csv")), mixrec("train", "--out", run, "--resume"),
                train(data, run, "--resume")):
        check(f"config.json with another {key} is refused", refused(got) and "config.json has been changed" in got.err, got)
    with open(path, "w") as out:
        out.write(before)
print(f"{len(kept)} files of a packed form, {len(mine)} of a run: "
      f"{outcomes['same']} times the same numbers, {outcomes['refused']} refusals")
after = numbers()
check("all as before", after[0].out == whole[0].out and after[1].out == whole[1].out, after[0])
end()
