"""PyTorch's side of train_bench.cpp: the same training step, f32 on the CPU, eager and compiled.

    OMP_NUM_THREADS=2 python tests/bench/train_bench_torch.py; build/bench/train_bench 2

Look-ups in two tables of a million rows, forward, backward, fused AdamW on the dense weights, row-sparse Adagrad on the
tables. Attention is in the reordered form (softmax((q K') H') H V), which is also the fast one here. One JSON line a mode.
"""
import json
import os
import time

import torch
import torch.nn.functional as F

N, D, D_S, L, F_H, F_S, T, BATCH, FIELDS, ROWS = 8, 64, 32, 2, 172, 512, 64, 512, 32, 1_000_000


def weight(*shape):
    return torch.nn.Parameter(torch.randn(*shape) * shape[-2] ** -0.5)


def gain(size):
    return torch.nn.Parameter(torch.ones(size))


def norm(x, g):
    return F.rms_norm(x, (x.shape[-1],), g, 1e-6)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gains = torch.nn.ParameterList([gain(D), gain(D), gain(D), gain(N * D_S)])
        self.mix = torch.nn.ParameterList([weight(N, D, 2 * F_H), weight(N, F_H, D)])
        self.fuse = torch.nn.ParameterList([weight(N, D, 2 * F_H), weight(N, F_H, D)])
        self.sequence = torch.nn.ParameterList([weight(N * D_S, 2 * F_S), weight(F_S, N * D_S)])
        self.key, self.value = weight(N, D_S, D), weight(N, D_S, D)

    @staticmethod
    def ffn(x, w):
        gate, up = (x @ w[0]).chunk(2, -1)
        return (F.silu(gate) * up) @ w[1]

    def per_head(self, x, w):
        return self.ffn(x.transpose(0, 1), w).transpose(0, 1)

    def forward(self, x, s):  # [B, N, D], [B, T, N D_S]
        mixed = norm(x, self.gains[0]).view(BATCH, N, N, D // N).transpose(1, 2).reshape(BATCH, N, D)
        p = mixed + x
        q = self.per_head(norm(p, self.gains[1]), self.mix) + p
        h = (self.ffn(norm(s, self.gains[3]), self.sequence) + s).view(BATCH, T, N, D_S).transpose(1, 2)
        u = torch.einsum("bnd,nsd->bns", q, self.key) * D ** -0.5
        m = F.scaled_dot_product_attention(u.unsqueeze(2), h, h, scale=1.0).squeeze(2)
        z = torch.einsum("bns,nsd->bnd", m, self.value) + q
        return self.per_head(norm(z, self.gains[2]), self.fuse) + z


class Dense(torch.nn.Module):
    """Everything behind the tables."""

    def __init__(self):
        super().__init__()
        self.input, self.events = weight(N, FIELDS * 32 // N, D), weight(64, N * D_S)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(L))
        self.norms = torch.nn.ParameterList([gain(D), gain(D)])
        self.heads = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(N * D, 256), torch.nn.SiLU(), torch.nn.Linear(256, 1)) for _ in range(2))

    def forward(self, fields, items):
        x = torch.einsum("bni,nid->bnd", fields.view(BATCH, N, -1), self.input)
        s = items @ self.events
        for block in self.blocks:
            x = block(x, s)
        return torch.cat([head(norm(x, g).flatten(1)) for head, g in zip(self.heads, self.norms)], 1)


def median_ms(runs, f):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        f()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[runs // 2]


def bench(mode):
    torch.manual_seed(0)
    fields, items = (torch.nn.Embedding(ROWS, d, sparse=True) for d in (32, 64))
    dense = Dense()
    run = torch.compile(dense) if mode == "compile" else dense
    optimisers = [torch.optim.AdamW(dense.parameters(), lr=1e-3, fused=True),
                  torch.optim.Adagrad([fields.weight, items.weight], lr=1e-2)]
    ids, history = torch.randint(ROWS, (BATCH, FIELDS)), torch.randint(ROWS, (BATCH, T))
    labels = (torch.rand(BATCH, 2) < 0.3).float()

    def step():
        logits = run(fields(ids).flatten(1), items(history))
        F.binary_cross_entropy_with_logits(logits, labels).backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    step()
    step()
    ms = median_ms(7, step)
    print(json.dumps({"name": f"tiny training step, PyTorch {torch.__version__} {mode}", "threads": torch.get_num_threads(),
                      "step_ms": round(ms, 1), "samples_per_second": round(1e3 * BATCH / ms, 1)}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    for mode in ("eager", "compile"):
        bench(mode)
