"""Golden numbers for tests/optim_test.cpp, from torch.optim in f64.

    python tests/oracle/optim_golden.py tests/golden/optim.safetensors

Ten steps with given gradients and a learning rate that changes from step to step.  Dense parameters a, b, c; b has
no gradient in step 4, which counts as a gradient of zeros.  A table of 13 rows is looked up nine times a step, ids
drawn with repeats, with torch's sparse gradients.
"""

import json
import struct
import sys

import numpy as np
import torch

STEPS, ROWS, WIDTH, LOOKUPS = 10, 13, 6, 9
SHAPES = {"a": (5, 7), "b": (11,), "c": (1,)}
DENSE = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.03),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, weight_decay=0.03),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.02, alpha=0.9, eps=1e-6, weight_decay=0.03),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-10, initial_accumulator_value=0.2, weight_decay=0.03),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.03),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3),
}
SPARSE = {
    "table_sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "table_adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1, eps=1e-10),
}


def write(path, tensors):
    header, at = {}, 0
    for name, value in tensors.items():
        dtype = {"float64": "F64", "int64": "I64"}[str(value.dtype)]
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(header, separators=(",", ":"))
    text += " " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text.encode())
        for value in tensors.values():
            out.write(np.ascontiguousarray(value).tobytes())


def set_rate(optimizer, base, factor):
    for group in optimizer.param_groups:
        group["lr"] = base * factor


def main(path):
    rng = np.random.default_rng(7)
    out = {"lr_factor": rng.uniform(0.2, 1.0, STEPS)}
    for name, shape in SHAPES.items():
        out[f"start.{name}"] = rng.normal(size=shape)
        out[f"gradient.{name}"] = rng.normal(size=(STEPS, *shape)) * rng.lognormal(size=(STEPS,) + (1,) * len(shape))
    out["gradient.b"][4] = 0
    for case, make in DENSE.items():
        parameters = {k: torch.tensor(out[f"start.{k}"], requires_grad=True) for k in SHAPES}
        optimizer = make(list(parameters.values()))
        base = optimizer.param_groups[0]["lr"]
        for step in range(STEPS):
            set_rate(optimizer, base, out["lr_factor"][step])
            for name, p in parameters.items():
                p.grad = torch.tensor(out[f"gradient.{name}"][step])
            optimizer.step()
        for name, p in parameters.items():
            out[f"{case}.{name}"] = p.detach().numpy()

    out["start.table"] = rng.normal(size=(ROWS, WIDTH))
    out["ids"] = rng.integers(0, 8, size=(STEPS, LOOKUPS))
    out["gradient.table"] = rng.normal(size=(STEPS, LOOKUPS, WIDTH))
    for case, make in SPARSE.items():
        table = torch.nn.Embedding.from_pretrained(torch.tensor(out["start.table"]), freeze=False, sparse=True)
        optimizer = make(list(table.parameters()))
        base = optimizer.param_groups[0]["lr"]
        for step in range(STEPS):
            set_rate(optimizer, base, out["lr_factor"][step])
            optimizer.zero_grad()
            (table(torch.tensor(out["ids"][step])) * torch.tensor(out["gradient.table"][step])).sum().backward()
            optimizer.step()
        out[case] = table.weight.detach().numpy()
    write(path, out)


main(sys.argv[1])
