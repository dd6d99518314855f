"""What the golden files of stacks share: the features and the batch of mixformer_golden.py, loops in f64, gradients
by central differences.  din_golden.py, dcnv2_golden.py and deepfm_golden.py import it.

The files hold

    metadata                       the model's options, as JSON
    batch.*                        offsets, labels and weights; ids, offsets or values of every feature
    weight.NAME, gradient.NAME     every weight, input-major (y = x W); gradients of tables are dense
    logits [C, tasks], loss []     loss = sum over tasks of sum_c w_c bce_c / sum_c w_c

A derivative is the fourth-order central difference with steps of 1e-3 times itself: what is left of it is below 1e-9.
"""

import json
import os

import numpy as np

import golden_file

TASKS = ["click", "long_view"]
# name, kind, width; the features of the request come first
REQUEST = [("user", "id", 2), ("country", "id", 3), ("age", "number", 2), ("hour", "id", 3)]
CANDIDATE = [("item", "id", 7), ("genres", "list", 3), ("position", "id", 2)]
EVENT = [("item", "id", 7), ("liked", "id", 2), ("gap", "id", 2)]
ROWS = {"user": 6, "country": 4, "hour": 5, "item": 9, "genres": 6, "position": 4, "liked": 3, "gap": 4}

BATCH = {  # three requests with 2, 1 and 2 candidates, and histories of 3, 0 and 4 events
    "offsets": [0, 2, 3, 5],
    "features.user.ids": [3, 5, 3],
    "features.country.ids": [1, 0, 2],
    "features.age.values": [0.5, -1.25, 2.0],
    "features.hour.ids": [4, 4, 2],
    "features.item.ids": [2, 7, 7, 0, 5],
    "features.genres.ids": [1, 4, 4, 2, 5, 3, 1],
    "features.genres.offsets": [0, 2, 2, 3, 6, 7],
    "features.position.ids": [1, 2, 1, 3, 1],
    "histories.seen.offsets": [0, 3, 3, 7],
    "histories.seen.item.ids": [2, 8, 2, 1, 7, 5, 0],
    "histories.seen.liked.ids": [1, 2, 2, 1, 1, 2, 0],
    "histories.seen.gap.ids": [3, 2, 1, 3, 3, 2, 1],
    "labels": [[1, 0], [0, 0], [1, 1], [0, 1], [1, 0]],
    "weights": [[1, 1], [1, 0], [0.5, 1], [2, 1], [0, 0.25]],
}
FLOATS = {"features.age.values", "labels", "weights"}


def width(features):
    return sum(feature[2] for feature in features)


def normal(g, *shape, scale=None):
    return g.standard_normal(shape) * (shape[-2] ** -0.5 if scale is None else scale)


def tables(g, prefix="embedding.", d=None):
    """Tables and the vector of the numeric feature; all `d` wide where it is given."""
    widths = {f[0]: f[2] for f in REQUEST + CANDIDATE + EVENT}
    w = {f"{prefix}tables.{name}": normal(g, rows, d or widths[name], scale=0.7) for name, rows in ROWS.items()
         if d is None or name not in ("liked", "gap")}
    w[f"{prefix}numeric.age"] = normal(g, 1, d or widths["age"], scale=0.7)
    return w


def fields(w, features, where, row, prefix="embedding."):
    """One vector per feature of one request, candidate or event."""
    parts = []
    for name, kind, _ in features:
        if kind == "number":
            parts.append(BATCH[f"{where}.{name}.values"][row] * w[f"{prefix}numeric.{name}"][0])
        elif kind == "id":
            parts.append(w[f"{prefix}tables.{name}"][BATCH[f"{where}.{name}.ids"][row]])
        else:
            start, end = BATCH[f"{where}.{name}.offsets"][row : row + 2]
            table = w[f"{prefix}tables.{name}"]
            rows = [table[i] for i in BATCH[f"{where}.{name}.ids"][start:end]]
            parts.append(sum(rows) / len(rows) if rows else np.zeros(table.shape[1]))
    return parts


def events_of(w, request):
    start, end = BATCH["histories.seen.offsets"][request : request + 2]
    return [np.concatenate(fields(w, EVENT, "histories.seen", t)) for t in range(start, end)]


def mean_event(w, request):
    events = events_of(w, request)
    return sum(events) / len(events) if events else np.zeros(width(EVENT))


def rows():
    """(request, candidate) of every candidate."""
    return [(r, c) for r in range(3) for c in range(*BATCH["offsets"][r : r + 2])]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def linear(w, name, x):
    return x @ w[name + ".weight"] + w[name + ".bias"]


def layer(w, g, name, n, m):
    w[name + ".weight"], w[name + ".bias"] = normal(g, n, m), normal(g, m, scale=0.1)


def heads(w, g, n):
    for task in TASKS:
        layer(w, g, f"heads.{task}.mlp.0", n, 1)


def head_logits(w, x):
    return np.concatenate([linear(w, f"heads.{task}.mlp.0", x) for task in TASKS])


def loss_of(logits):
    y, weight = np.array(BATCH["labels"], float), np.array(BATCH["weights"], float)
    p = sigmoid(logits)
    return float(((weight * -(y * np.log(p) + (1 - y) * np.log(1 - p))).sum(0) / weight.sum(0)).sum())


def gradient(loss, weight):
    """Of loss() to every number of `weight`, which it reads."""
    h, g = 1e-3, np.zeros_like(weight)
    for i in np.ndindex(*weight.shape):
        at = weight[i]

        def moved(by):
            weight[i] = at + by
            value = loss()
            weight[i] = at
            return value

        g[i] = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    return g


def write(name, options, w, forward, buffers=()):
    """forward(w) -> logits [C, tasks]."""
    tensors = {f"batch.{k}": np.array(v, "float32" if k in FLOATS else "int64") for k, v in BATCH.items()}
    logits = forward(w)
    for weight in w:
        tensors[f"weight.{weight}"] = w[weight]
        if weight not in buffers:
            tensors[f"gradient.{weight}"] = gradient(lambda: loss_of(forward(w)), w[weight])
    tensors["logits"], tensors["loss"] = logits, np.array(loss_of(logits))
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", name + ".safetensors")
    golden_file.write(path, tensors, {"options": json.dumps(options)})
    print(logits.round(4).tolist(), loss_of(logits))
