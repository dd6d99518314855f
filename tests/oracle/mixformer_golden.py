"""Golden files of MixFormer and UI-MixFormer in f64, from PyTorch, written from the paper's equations.

    python tests/oracle/mixformer_golden.py          # needs torch and numpy; writes into tests/golden/

Everything is computed candidate by candidate and event by event, the way the equations read; nothing is batched
or reordered.  Gradients are PyTorch's.  The files are

    mixformer.safetensors          eqs 1-9
    mixformer_pooled.safetensors   the same with the mean of a request's raw events as one more feature, after those
                                   of the request
    ui_mixformer.safetensors       eqs 10-11: user heads first, N_G = floor(D_G N / D_ns) in [1, N-1], a side's features
                                   padded and cut by themselves

and hold

    metadata                       sizes, and the optimisers' settings
    batch.*                        offsets, labels and weights; ids, offsets or values of every feature
    weight.NAME, gradient.NAME     every weight, input-major (y = x W); gradients of tables are dense
    logits [C, tasks], loss []     loss = sum over tasks of sum_c w_c bce_c / sum_c w_c
    losses.sgd, losses.adamw [11]  losses before each of ten steps on this one batch, and after the last:
                                   sgd: plain, everything; adamw: AdamW for dense weights, Adagrad for tables
"""

import math
import os

import numpy as np
import torch

import golden_file

N, D, L, D_S, F, F_S, H = 4, 8, 2, 3, 6, 7, 5  # heads, width, layers, event width, hidden widths of FFNs and task MLPs
EPS = 1e-6
TASKS = ["click", "long_view"]
SGD_LR = 0.05
ADAMW = dict(lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
ADAGRAD = dict(lr=0.05, eps=1e-10)

# name, kind, table, width; the request's features come first in eq 1
REQUEST = [("user", "id", "user", 2), ("country", "id", "country", 3), ("age", "number", None, 2),
           ("hour", "id", "hour", 3)]
CANDIDATE = [("item", "id", "item", 7), ("genres", "list", "genres", 3), ("position", "id", "position", 2)]
EVENT = [("item", "id", "item", 7), ("liked", "id", "liked", 2), ("gap", "id", "gap", 2)]
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
    return sum(feature[3] for feature in features)


def split_heads(model):
    """[(name, heads, slice width)] of the input projections."""
    request = width(REQUEST) + (width(EVENT) if model == "mixformer_pooled" else 0)
    candidate = width(CANDIDATE)
    if model != "ui_mixformer":
        return [("input.projection", N, math.ceil((request + candidate) / N))]
    item_heads = min(max(candidate * N // (request + candidate), 1), N - 1)
    user_heads = N - item_heads
    return [("input.user_projection", user_heads, math.ceil(request / user_heads)),
            ("input.item_projection", item_heads, math.ceil(candidate / item_heads))]


def weights_of(model, seed):
    g = torch.Generator().manual_seed(seed)
    weights = {}

    def normal(name, *shape, scale=None):
        scale = shape[-2] ** -0.5 if scale is None else scale
        weights[name] = torch.randn(shape, generator=g, dtype=torch.float64) * scale

    def gain(name, size):
        weights[name] = 1 + 0.2 * torch.randn(size, generator=g, dtype=torch.float64)

    for table, rows in ROWS.items():
        d = next(f[3] for f in REQUEST + CANDIDATE + EVENT if f[2] == table)
        normal(f"embedding.tables.{table}", rows, d, scale=0.7)
    normal("embedding.numeric.age", 1, 2, scale=0.7)
    for name, heads, d in split_heads(model):
        normal(name, heads, d, D)
    normal("event_projection.seen.weight", width(EVENT), N * D_S)
    for l in range(L):
        for part, inner in [("query_mixer", ["norm", "ffn_norm"]), ("output_fusion", ["norm"])]:
            for norm in inner:
                gain(f"blocks.{l}.{part}.{norm}.gain", D)
            normal(f"blocks.{l}.{part}.ffn.gate_up", N, D, 2 * F)  # W_gate, then W_up
            normal(f"blocks.{l}.{part}.ffn.down", N, F, D)
        gain(f"blocks.{l}.attention.norm.gain", N * D_S)
        normal(f"blocks.{l}.attention.ffn.gate_up", N * D_S, 2 * F_S)
        normal(f"blocks.{l}.attention.ffn.down", F_S, N * D_S)
        normal(f"blocks.{l}.attention.key", N, D_S, D, scale=1)
        normal(f"blocks.{l}.attention.value", N, D_S, D)
    for task in TASKS:
        gain(f"heads.{task}.norm.gain", D)
        normal(f"heads.{task}.mlp.0.weight", N * D, H)
        normal(f"heads.{task}.mlp.0.bias", H, scale=0.1)
        normal(f"heads.{task}.mlp.1.weight", H, 1)
        normal(f"heads.{task}.mlp.1.bias", 1, scale=0.1)
    return {name: weight.requires_grad_() for name, weight in weights.items()}


def rms_norm(x, g):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + EPS) * g


def swiglu(x, gate_up, down):
    gate, up = x @ gate_up[:, : gate_up.shape[1] // 2], x @ gate_up[:, gate_up.shape[1] // 2 :]
    return (gate * torch.sigmoid(gate) * up) @ down


def embed(w, features, prefix, row):
    """Eq 1 for the features of one request, candidate or event."""
    parts = []
    for name, kind, table, d in features:
        if kind == "number":
            parts.append(float(BATCH[f"{prefix}.{name}.values"][row]) * w[f"embedding.numeric.{name}"][0])
        elif kind == "id":
            parts.append(w[f"embedding.tables.{table}"][BATCH[f"{prefix}.{name}.ids"][row]])
        else:
            start, end = BATCH[f"{prefix}.{name}.offsets"][row : row + 2]
            ids = BATCH[f"{prefix}.{name}.ids"][start:end]
            rows = [w[f"embedding.tables.{table}"][i] for i in ids]
            parts.append(sum(rows) / len(rows) if rows else torch.zeros(d, dtype=torch.float64))
    return torch.cat(parts)


def project(w, name, e):
    """Eq 2: equal slices of e, zero-padded at the end, each with its own matrix."""
    heads, d, _ = w[name].shape
    e = torch.cat([e, torch.zeros(heads * d - len(e), dtype=torch.float64)])
    return [e[j * d : (j + 1) * d] @ w[name][j] for j in range(heads)]


def head_mixing(x, user_heads):
    """Eq 3, and eqs 10-11 for user_heads > 0."""
    step, mixed = D // N, []
    for c in range(N):
        chunks = [x[r, c * step : (c + 1) * step] for r in range(N)]
        mixed.append(torch.cat([0 * k if c < user_heads <= r else k for r, k in enumerate(chunks)]))
    return torch.stack(mixed)


def block(w, l, x, events, user_heads):
    name = f"blocks.{l}"

    def per_head(part, rows):
        return torch.stack([swiglu(rows[i], w[f"{name}.{part}.ffn.gate_up"][i], w[f"{name}.{part}.ffn.down"][i])
                            for i in range(N)])

    p = head_mixing(rms_norm(x, w[f"{name}.query_mixer.norm.gain"]), user_heads) + x  # eq 3
    q = per_head("query_mixer", rms_norm(p, w[f"{name}.query_mixer.ffn_norm.gain"])) + p  # eq 4
    h = [swiglu(rms_norm(s, w[f"{name}.attention.norm.gain"]), w[f"{name}.attention.ffn.gate_up"],
                w[f"{name}.attention.ffn.down"]) + s for s in events]  # eq 5
    z = []
    for i in range(N):
        z_i = q[i]
        if h:
            h_i = [h_t[i * D_S : (i + 1) * D_S] for h_t in h]  # eq 6
            k = [h_t @ w[f"{name}.attention.key"][i] for h_t in h_i]  # eq 7
            v = [h_t @ w[f"{name}.attention.value"][i] for h_t in h_i]
            alpha = torch.softmax(torch.stack([q[i] @ k_t for k_t in k]) / math.sqrt(D), 0)
            z_i = z_i + sum(a * v_t for a, v_t in zip(alpha, v))  # eq 8
        z.append(z_i)
    z = torch.stack(z)
    return per_head("output_fusion", rms_norm(z, w[f"{name}.output_fusion.norm.gain"])) + z  # eq 9


def read_out(w, task, x):
    flat = rms_norm(x, w[f"heads.{task}.norm.gain"]).reshape(-1)
    hidden = flat @ w[f"heads.{task}.mlp.0.weight"] + w[f"heads.{task}.mlp.0.bias"]
    return (hidden * torch.sigmoid(hidden)) @ w[f"heads.{task}.mlp.1.weight"] + w[f"heads.{task}.mlp.1.bias"]


def forward(model, w):
    logits = []
    projections = split_heads(model)
    user_heads = projections[0][1] if model == "ui_mixformer" else 0
    for request in range(3):
        start, end = BATCH["histories.seen.offsets"][request : request + 2]
        raw = [embed(w, EVENT, "histories.seen", t) for t in range(start, end)]
        events = [s @ w["event_projection.seen.weight"] for s in raw]
        of_request = embed(w, REQUEST, "features", request)
        if model == "mixformer_pooled":
            pooled = sum(raw) / len(raw) if raw else torch.zeros(width(EVENT), dtype=torch.float64)
            of_request = torch.cat([of_request, pooled])
        for candidate in range(*BATCH["offsets"][request : request + 2]):
            of_candidate = embed(w, CANDIDATE, "features", candidate)
            if user_heads:
                x = project(w, projections[0][0], of_request) + project(w, projections[1][0], of_candidate)
            else:
                x = project(w, projections[0][0], torch.cat([of_request, of_candidate]))
            x = torch.stack(x)
            for l in range(L):
                x = block(w, l, x, events, user_heads)
            logits.append(torch.cat([read_out(w, task, x) for task in TASKS]))
    return torch.stack(logits)


def loss_of(logits):
    y, weight = (torch.tensor(BATCH[key], dtype=torch.float64) for key in ("labels", "weights"))
    p = torch.sigmoid(logits)
    bce = -(y * torch.log(p) + (1 - y) * torch.log(1 - p))
    return ((weight * bce).sum(0) / weight.sum(0)).sum()


def train(model, seed, optimisers_of):
    w = weights_of(model, seed)
    optimisers = optimisers_of([v for k, v in w.items() if ".tables." not in k],
                               [v for k, v in w.items() if ".tables." in k])
    losses = []
    for _ in range(10):
        loss = loss_of(forward(model, w))
        losses.append(loss.item())
        for optimiser in optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
    return np.array(losses + [loss_of(forward(model, w)).item()])


def main():
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")
    for seed, model in enumerate(["mixformer", "mixformer_pooled", "ui_mixformer"], start=1):
        w = weights_of(model, seed)
        logits = forward(model, w)
        loss = loss_of(logits)
        loss.backward()
        tensors = {f"batch.{k}": np.array(v, "float32" if k in FLOATS else "int64") for k, v in BATCH.items()}
        for name, weight in w.items():
            tensors[f"weight.{name}"] = weight.detach().numpy()
            tensors[f"gradient.{name}"] = weight.grad.numpy()
        tensors["logits"], tensors["loss"] = logits.detach().numpy(), loss.detach().numpy()
        tensors["losses.sgd"] = train(model, seed, lambda dense, tables: [torch.optim.SGD(dense + tables, lr=SGD_LR)])
        tensors["losses.adamw"] = train(model, seed, lambda dense, tables: [
            torch.optim.AdamW(dense, **ADAMW), torch.optim.Adagrad(tables, **ADAGRAD)])
        golden_file.write(os.path.join(folder, model + ".safetensors"), tensors, dict(
            heads=N, width=D, layers=L, event_width=D_S, ffn_hidden=F, sequence_hidden=F_S, head_hidden=H, norm_eps=EPS,
            user_heads=split_heads(model)[0][1] if model == "ui_mixformer" else 0, sgd_lr=SGD_LR, adamw=ADAMW,
            adagrad=ADAGRAD))
        print(tensors["logits"].round(3).tolist(), tensors["loss"], tensors["losses.sgd"].round(4), tensors["losses.adamw"].round(4))


if __name__ == "__main__":
    main()
