"""Golden files of DCN V2 (Wang et al., WWW 2021, https://arxiv.org/abs/2008.13535) in f64, from its equations.

    python tests/oracle/dcnv2_golden.py        # needs numpy; writes dcnv2*.safetensors

x_0 holds the features of the request, the mean event and the features of the candidate.

    full      x_{l+1} = x_0 * (W_l x_l + b_l) + x_l                                             (eq 1)
    low rank  x_{l+1} = x_0 * (U_l (V_l^T x_l) + b_l) + x_l                                     (eq 2)
    mixture   x_{l+1} = sum_e G_e(x_l) E_e(x_l) + x_l,                                          (eq 3)
              E_e(x) = x_0 * (U_e tanh(C_e tanh(V_e^T x)) + b),  G = softmax of a product with x (eq 4)

Stacked: a deep tower reads x_L.  Parallel: it reads x_0, and both stand side by side.  Layers below read y = x W: the
files hold transposed matrices, experts side by side in V (columns) and U (rows).
"""

import numpy as np

from stack_golden import *

D = width(REQUEST) + width(EVENT) + width(CANDIDATE)
RANK, EXPERTS, DEEP, LAYERS = 3, 2, 6, 2


def weights_of(kind, parallel, seed):
    g = np.random.default_rng(seed)
    w = tables(g)
    for l in range(LAYERS):
        name = f"interaction.cross.{l}."
        experts = EXPERTS if kind == "mixture" else 1
        if kind == "full":
            w[name + "weight"] = normal(g, D, D)
        else:
            w[name + "down"], w[name + "up"] = normal(g, D, experts * RANK), normal(g, experts * RANK, D)
        if kind == "mixture":
            w[name + "middle"], w[name + "gate"] = normal(g, experts, RANK, RANK), normal(g, D, experts)
        w[name + "bias"] = normal(g, D, scale=0.2)
    layer(w, g, "interaction.deep.0", D, DEEP)
    heads(w, g, DEEP + (D if parallel else 0))
    return w


def cross(w, l, x0, x):
    name = f"interaction.cross.{l}."
    b = w[name + "bias"]
    if name + "weight" in w:
        return x0 * (x @ w[name + "weight"] + b) + x
    if name + "gate" not in w:
        return x0 * ((x @ w[name + "down"]) @ w[name + "up"] + b) + x
    scores = x @ w[name + "gate"]
    gates = np.exp(scores) / np.exp(scores).sum()
    y = x
    for e in range(EXPERTS):
        part = slice(e * RANK, (e + 1) * RANK)
        inner = np.tanh(np.tanh(x @ w[name + "down"][:, part]) @ w[name + "middle"][e])
        y = y + gates[e] * (x0 * (inner @ w[name + "up"][part] + b))
    return y


def forward(parallel):
    def of(w):
        logits = []
        for request, candidate in rows():
            x0 = np.concatenate(fields(w, REQUEST, "features", request) + [mean_event(w, request)] +
                                fields(w, CANDIDATE, "features", candidate))
            x = x0
            for l in range(LAYERS):
                x = cross(w, l, x0, x)
            deep = linear(w, "interaction.deep.0", x0 if parallel else x)
            deep = np.maximum(deep, 0)
            logits.append(head_logits(w, np.concatenate([x, deep]) if parallel else deep))
        return np.array(logits)

    return of


def main():
    for seed, (name, kind, parallel) in enumerate([("dcnv2", "full", False), ("dcnv2_low_rank", "low rank", True),
                                                   ("dcnv2_mixture", "mixture", True)], start=31):
        options = {"name": "dcnv2", "layers": LAYERS, "deep": {"widths": [DEEP], "activation": "relu"}}
        if kind != "full":
            options.update(rank=RANK, experts=EXPERTS if kind == "mixture" else 1)
        if parallel:
            options.update(compose="parallel")
        write(name, {"sequence": {"name": "mean_pooling"}, "interaction": options}, weights_of(kind, parallel, seed),
              forward(parallel))


if __name__ == "__main__":
    main()
