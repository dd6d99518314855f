"""PyTorch's side of train_bench.cpp, gpu_bench.cpp and gpu_serve_bench.cpp: the same training step, kernels and scoring of
one request, one JSON line each.

    OMP_NUM_THREADS=2 python tests/bench/bench_torch.py; build/bench/train_bench 2
    python tests/bench/bench_torch.py cuda tiny small medium micro; build/bench/gpu_bench
    python tests/bench/bench_torch.py cuda small graph blocks          (these modes alone)
    python tests/bench/bench_torch.py cuda serve; build/bench/gpu_serve_bench serve

A step is look-ups in two tables of a million rows, forward, backward, fused AdamW on the dense weights, row-sparse Adagrad on
the tables: f32 on the CPU, bf16 autocast on a card. Modes: eager; compile, torch.compile of all but the tables; graph, the same
with CUDA graphs (mode="reduce-overhead"); blocks, every block compiled by itself, which on a GPU is faster than compiling all
of them together: that puts the norm gradients of all layers in one slow kernel. Forms: plain; absorbed, where the down
product of the sequence FFN moves to the queries as in ops/attention/sequence_attention.h. The fastest mode of each form is
the one to compare with. Attention is in the reordered form (softmax((q K') H') H V), which is also the fast one here. Scoring is UI-MixFormer's decoupled plan from embedded inputs, with
weights in bf16: what gpu_serve_bench calls "embedded".
"""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F

FIELDS, ROWS = 32, 1_000_000
SIZES = {
    "tiny": dict(N=8, D=64, d_s=32, layers=2, F_h=172, F_s=512, T=64, batch=512),
    "small": dict(N=16, D=384, d_s=64, layers=4, F_h=1024, F_s=2048, T=512, batch=512),
    "medium": dict(N=16, D=768, d_s=64, layers=4, F_h=2048, F_s=2048, T=512, batch=512),
}
CUDA = "cuda" in sys.argv[1:]
DEVICE = "cuda" if CUDA else "cpu"


def weight(*shape):
    return torch.nn.Parameter(torch.randn(*shape) * shape[-2] ** -0.5)


def gain(size):
    return torch.nn.Parameter(torch.ones(size))


def norm(x, g):
    return F.rms_norm(x, (x.shape[-1],), g, 1e-6)


def ffn(x, w):
    gate, up = (x @ w[0].to(x.dtype)).chunk(2, -1)
    return (F.silu(gate) * up) @ w[1].to(x.dtype)


def per_head(x, w):
    return ffn(x.transpose(0, 1), w).transpose(0, 1)


class Block(torch.nn.Module):
    def __init__(self, N, D, d_s, F_h, F_s):
        super().__init__()
        self.sizes = N, D, d_s
        self.gains = torch.nn.ParameterList([gain(D), gain(D), gain(D), gain(N * d_s)])
        self.mix = torch.nn.ParameterList([weight(N, D, 2 * F_h), weight(N, F_h, D)])
        self.fuse = torch.nn.ParameterList([weight(N, D, 2 * F_h), weight(N, F_h, D)])
        self.sequence = torch.nn.ParameterList([weight(N * d_s, 2 * F_s), weight(F_s, N * d_s)])
        self.key, self.value = weight(N, d_s, D), weight(N, d_s, D)

    def forward(self, x, s):  # [B, N, D], [B, T, N d_s]
        N, D, d_s = self.sizes
        mixed = norm(x, self.gains[0]).view(-1, N, N, D // N).transpose(1, 2).reshape(-1, N, D)
        p = mixed + x
        q = per_head(norm(p, self.gains[1]), self.mix) + p
        h = (ffn(norm(s, self.gains[3]), self.sequence) + s).view(*s.shape[:2], N, d_s).transpose(1, 2)
        u = torch.einsum("bnd,nsd->bns", q, self.key.to(q.dtype)) * D ** -0.5
        m = F.scaled_dot_product_attention(u.unsqueeze(2), h, h, scale=1.0).squeeze(2)
        z = torch.einsum("bns,nsd->bnd", m, self.value.to(m.dtype)) + q
        return per_head(norm(z, self.gains[2]), self.fuse) + z


class AbsorbedBlock(Block):
    """The same block without the event states: h = s + z W is read by one attention, whose queries take W instead."""

    def forward(self, x, s):
        N, D, d_s = self.sizes
        mixed = norm(x, self.gains[0]).view(-1, N, N, D // N).transpose(1, 2).reshape(-1, N, D)
        p = mixed + x
        q = per_head(norm(p, self.gains[1]), self.mix) + p
        gate, up = (norm(s, self.gains[3]) @ self.sequence[0].to(s.dtype)).chunk(2, -1)
        z = F.silu(gate) * up  # [B, T, F_s]
        heads = s.view(*s.shape[:2], N, d_s)
        down = self.sequence[1].to(z.dtype).view(-1, N, d_s)
        u = torch.einsum("bnd,nsd->bns", q, self.key.to(q.dtype)) * D ** -0.5
        absorbed = torch.einsum("bns,fns->bnf", u.to(z.dtype), down)
        scores = torch.bmm(absorbed, z.transpose(1, 2)) + torch.einsum("bns,btns->bnt", u.to(s.dtype), heads)
        weights = scores.float().softmax(-1).to(z.dtype)
        m = torch.einsum("bnf,fns->bns", torch.bmm(weights, z), down) + torch.einsum("bnt,btns->bns", weights, heads)
        z = torch.einsum("bns,nsd->bnd", m, self.value.to(m.dtype)) + q
        return per_head(norm(z, self.gains[2]), self.fuse) + z


class Dense(torch.nn.Module):
    """Everything behind the tables."""

    def __init__(self, N, D, d_s, layers, F_h, F_s, block=Block):
        super().__init__()
        self.input, self.events = weight(N, FIELDS * 32 // N, D), weight(64, N * d_s)
        self.blocks = torch.nn.ModuleList(block(N, D, d_s, F_h, F_s) for _ in range(layers))
        self.norms = torch.nn.ParameterList([gain(D), gain(D)])
        self.heads = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(N * D, 256), torch.nn.SiLU(), torch.nn.Linear(256, 1)) for _ in range(2))

    def forward(self, fields, items):
        x = torch.einsum("bni,nid->bnd", fields.view(len(fields), len(self.input), -1), self.input)
        s = items @ self.events
        for block in self.blocks:
            x = block(x, s)
        return torch.cat([head(norm(x, g).flatten(1)) for head, g in zip(self.heads, self.norms)], 1)


class SidedBlock(Block):
    """UI-MixFormer's block for one request: users first and once, items for every candidate."""

    def forward(self, users, items, s):  # [U, D], [C, G, D], [T, N d_s]
        N, D, d_s = self.sizes
        U, (C, G), w = len(users), items.shape[:2], D // N
        of_users, of_items = norm(users, self.gains[0]), norm(items, self.gains[0])
        p_users = users + F.pad(of_users[:, :U * w].view(U, U, w).transpose(0, 1).reshape(U, U * w), (0, D - U * w))
        shared = of_users[:, U * w:].view(U, G, w).transpose(0, 1).reshape(1, G, U * w).expand(C, -1, -1)
        own = of_items[..., U * w:].view(C, G, G, w).transpose(1, 2).reshape(C, G, G * w)
        p_items = items + torch.cat([shared, own], -1)
        h = (ffn(norm(s, self.gains[3]), self.sequence) + s).view(len(s), N, d_s).transpose(0, 1)

        def side(p, heads):  # [rows, n, D]
            mix, fuse = ([w[heads] for w in weights] for weights in (self.mix, self.fuse))
            q = per_head(norm(p, self.gains[1]), mix) + p
            u = torch.einsum("bnd,nsd->nbs", q, self.key[heads]) * D ** -0.5
            m = F.scaled_dot_product_attention(u.unsqueeze(0), h[heads].unsqueeze(0), h[heads].unsqueeze(0), scale=1.0)
            z = torch.einsum("nbs,nsd->bnd", m.squeeze(0), self.value[heads]) + q
            return per_head(norm(z, self.gains[2]), fuse) + z

        return side(p_users.unsqueeze(0), slice(0, U)).squeeze(0), side(p_items, slice(U, N))


class Scoring(torch.nn.Module):
    def __init__(self, N, D, d_s, layers, F_h, F_s):
        super().__init__()
        self.blocks = torch.nn.ModuleList(SidedBlock(N, D, d_s, F_h, F_s) for _ in range(layers))
        self.norms = torch.nn.ParameterList([gain(D), gain(D)])
        self.heads = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(N * D, 256), torch.nn.SiLU(), torch.nn.Linear(256, 1)) for _ in range(2))

    def forward(self, users, items, s):
        for block in self.blocks:
            users, items = block(users, items, s)
        x = torch.cat([users.expand(len(items), -1, -1), items], 1)
        return torch.cat([head(norm(x, g).flatten(1)) for head, g in zip(self.heads, self.norms)], 1)


def median_ms(runs, f, warm=2):
    for _ in range(warm):
        f()
    times = []
    for _ in range(runs):
        if CUDA:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            f()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
        else:
            start = time.perf_counter()
            f()
            times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[runs // 2]


def say(name, **numbers):
    print(json.dumps({"name": name, **{k: round(v, 4) if isinstance(v, float) else v for k, v in numbers.items()}}), flush=True)


def check_forms(T=16, batch=4, **sizes):
    """Both forms give the same logits: in f64, so that a wrong form cannot hide behind rounding."""
    torch.manual_seed(1)
    plain, absorbed = (Dense(**sizes, block=block).to(DEVICE, torch.float64) for block in (Block, AbsorbedBlock))
    absorbed.load_state_dict(plain.state_dict())
    inputs = torch.randn(batch, FIELDS * 32, device=DEVICE).double(), torch.randn(batch, T, 64, device=DEVICE).double()
    with torch.no_grad():
        distance = (plain(*inputs) - absorbed(*inputs)).abs().max().item()
    if not distance < 1e-9:
        raise SystemExit(f"bench_torch: the forms differ by {distance}")


def compiled(dense, mode):
    if mode == "eager":
        return dense
    if mode == "blocks":
        for i, block in enumerate(dense.blocks):
            dense.blocks[i] = torch.compile(block)
        return dense
    return torch.compile(dense, mode="reduce-overhead" if mode == "graph" else "default")


def bench_step(name, form, mode, T, batch, **sizes):
    torch.manual_seed(0)
    torch._dynamo.reset()
    fields, items = (torch.nn.Embedding(ROWS, d, sparse=True, device=DEVICE) for d in (32, 64))
    dense = Dense(**sizes, block=AbsorbedBlock if form == "absorbed" else Block).to(DEVICE)
    parameters = list(dense.parameters())
    run = compiled(dense, mode)
    optimisers = [torch.optim.AdamW(parameters, lr=1e-3, fused=True),
                  torch.optim.Adagrad([fields.weight, items.weight], lr=1e-2)]
    ids = torch.randint(ROWS, (batch, FIELDS), device=DEVICE)
    history = torch.randint(ROWS, (batch, T), device=DEVICE)
    labels = (torch.rand(batch, 2, device=DEVICE) < 0.3).float()

    def step():
        embedded = fields(ids).flatten(1), items(history)
        with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=CUDA):
            logits = run(*embedded)
        F.binary_cross_entropy_with_logits(logits.float(), labels).backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    ms = median_ms(12 if CUDA else 7, step, 5 if CUDA else 2)
    memory = {"peak_GiB": torch.cuda.max_memory_allocated() / 2**30} if CUDA else {"threads": torch.get_num_threads()}
    say(f"{name} training step, {form}, PyTorch {torch.__version__} {mode}", step_ms=ms, samples_per_second=1e3 * batch / ms,
        **memory)


def bench_per_head_ffn(B, D, F_h, N=16):
    w = [weight(N, D, 2 * F_h), weight(N, F_h, D)]
    w = [torch.nn.Parameter(x.detach().to(DEVICE, torch.bfloat16)) for x in w]
    x = torch.randn(B, N, D, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    dy = torch.randn_like(x)
    for mode, f in ("eager", per_head), ("compile", torch.compile(per_head)):
        def both():
            f(x, w).backward(dy)
            for t in (x, *w):
                t.grad = None
        with torch.no_grad():
            forward = median_ms(20, lambda: f(x, w), 5)
        say(f"per-head ffn N{N} B{B} D{D} F{F_h}, PyTorch {mode}", fwd_ms=forward, fb_ms=median_ms(20, both, 5))


def bench_attention(B, T, N=16, d_s=64):
    history = torch.randn(B, T, N * d_s, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    u = torch.randn(B, N, 1, d_s, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)

    def sdpa(u, history):
        h = history.view(B, T, N, d_s).transpose(1, 2)
        return F.scaled_dot_product_attention(u, h, h, scale=1.0)

    def einsum(u, history):
        h = history.view(B, T, N, d_s)
        return torch.einsum("bnt,btnd->bnd", torch.einsum("bnd,btnd->bnt", u.squeeze(2), h).softmax(-1), h).unsqueeze(2)

    dm = torch.randn_like(u)
    for mode, f in ("sdpa", sdpa), ("compiled einsum", torch.compile(einsum)):
        def both():
            f(u, history).backward(dm)
            u.grad = history.grad = None
        with torch.no_grad():
            forward = median_ms(20, lambda: f(u, history), 5)
        say(f"one-query attention B{B} N{N} T{T} Ds{d_s}, PyTorch {mode}", fwd_ms=forward, fb_ms=median_ms(20, both, 5))


def bench_embedding_bag(rows=10_000_000, width=64, bags=8192, ids_each=64):
    bag = torch.nn.EmbeddingBag(rows, width, mode="sum", sparse=True, device=DEVICE)
    optimiser = torch.optim.Adagrad(bag.parameters(), lr=0.01)
    dy = torch.randn(bags, width, device=DEVICE)
    for name, u in ("uniform", torch.rand(bags, ids_each, device=DEVICE)), ("skewed", torch.rand(bags, ids_each, device=DEVICE) ** 6):
        ids = (u.double() * rows).long().clamp(max=rows - 1)

        def step():
            bag(ids).backward(dy)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        say(f"embedding bag 10Mx64 B{bags} P{ids_each} sparse adagrad {name}, PyTorch", step_ms=median_ms(10, step, 3))


def bench_serve(name, candidates, T, users=8):
    torch._dynamo.reset()
    sizes = {k: v for k, v in SIZES[name].items() if k not in ("T", "batch")}
    model = Scoring(**sizes).to(DEVICE, torch.bfloat16).eval()
    shapes = (users, sizes["D"]), (candidates, sizes["N"] - users, sizes["D"]), (T, sizes["N"] * sizes["d_s"])
    inputs = [torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16) for shape in shapes]
    for mode in "eager", "graph":
        run = model if mode == "eager" else torch.compile(model, mode="reduce-overhead")
        with torch.no_grad():
            ms = median_ms(200, lambda: run(*inputs), 10)
        say(f"{name}, one request, PyTorch {mode}", candidates=candidates, T=T, p50_ms=ms)


def main(asked):
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if CUDA:
        torch.backends.cuda.matmul.allow_tf32 = True
        a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
        say("gemm8192_bf16", tflops=2 * 8192**3 / median_ms(20, lambda: a @ b, 5) / 1e9)
    if CUDA and "micro" in asked:
        for sizes in (1536, 384, 1024), (1536, 768, 2048), (8192, 64, 256):
            bench_per_head_ffn(*sizes)
        for sizes in (512, 512), (128, 2048), (32, 8192):
            bench_attention(*sizes)
        bench_embedding_bag()
    if CUDA and "serve" in asked:
        for name in "small", "medium":
            for candidates, T in (400, 512), (500, 512), (550, 512), (500, 10_000):
                bench_serve(name, candidates, T)
    names = [size for size in SIZES if size in asked] or ([] if CUDA else ["tiny"])
    all_modes = ("eager", "compile", "graph", "blocks") if CUDA else ("eager", "compile")
    modes = [mode for mode in all_modes if mode in asked] or all_modes
    if names:
        check_forms(**{k: v for k, v in SIZES["tiny"].items() if k not in ("T", "batch")})
    for name in names:
        for form in "plain", "absorbed":
            for mode in modes:
                bench_step(name, form, mode, **SIZES[name])
                if CUDA:
                    torch.cuda.empty_cache()


if __name__ == "__main__":
    main(sys.argv[1:])
