"""Golden files of DIN (Zhou et al., KDD 2018, https://arxiv.org/abs/1706.06978) in f64, from loops over its equations.

    python tests/oracle/din_golden.py          # needs numpy; writes din.safetensors and din_softmax.safetensors

For a candidate with target q, and an event e of which k are the columns that q has too (the first ones):

    a_t = v . f(W [e_t, q, k_t - q, k_t * q] + b) + c        f = Dice or sigmoid, one hidden layer
    u   = sum_t a_t e_t                                      or sum_t softmax(a)_t e_t; 0 without events
    Dice(s) = p s + alpha (1 - p) s,  p = sigmoid((s - mean) / sqrt(variance + 1e-9))

in evaluation: mean and variance are buffers.  The MLP reads [features of the request, features of the candidate, u]
and each task has a Linear behind it.
"""

import numpy as np

from stack_golden import *

HIDDEN, MLP = 5, 6


def weights_of(activation, seed):
    g = np.random.default_rng(seed)
    w = tables(g)
    target = width([EVENT[0]])
    layer(w, g, "sequence.seen.unit.0", width(EVENT) + 3 * target, HIDDEN)
    if activation == "dice":
        w["sequence.seen.unit.0.activation.slope"] = normal(g, HIDDEN, scale=0.3)
        w["sequence.seen.unit.0.activation.statistics.mean"] = normal(g, HIDDEN, scale=0.3)
        w["sequence.seen.unit.0.activation.statistics.variance"] = g.uniform(0.5, 2, HIDDEN)
    layer(w, g, "sequence.seen.score", HIDDEN, 1)
    layer(w, g, "interaction.0", width(REQUEST) + width(CANDIDATE) + width(EVENT), MLP)
    heads(w, g, MLP)
    return w


def hidden(w, s):
    name = "sequence.seen.unit.0.activation."
    if name + "slope" not in w:
        return sigmoid(s)
    p = sigmoid((s - w[name + "statistics.mean"]) / np.sqrt(w[name + "statistics.variance"] + 1e-9))
    return p * s + w[name + "slope"] * (1 - p) * s


def pooled(w, events, q, softmax):
    if not events:
        return np.zeros(width(EVENT))
    scores = []
    for e in events:
        k = e[: len(q)]
        s = linear(w, "sequence.seen.unit.0", np.concatenate([e, q, k - q, k * q]))
        scores.append(linear(w, "sequence.seen.score", hidden(w, s))[0])
    if softmax:
        exps = [np.exp(a) for a in scores]
        scores = [x / sum(exps) for x in exps]
    return sum(a * e for a, e in zip(scores, events))


def forward(softmax):
    def of(w):
        logits = []
        for request, candidate in rows():
            of_candidate = fields(w, CANDIDATE, "features", candidate)
            u = pooled(w, events_of(w, request), of_candidate[0], softmax)
            e = np.concatenate(fields(w, REQUEST, "features", request) + of_candidate + [u])
            x = linear(w, "interaction.0", e)
            logits.append(head_logits(w, x * sigmoid(x)))
        return np.array(logits)

    return of


def main():
    buffers = ["sequence.seen.unit.0.activation.statistics." + b for b in ("mean", "variance")]
    mlp = {"name": "mlp", "widths": [MLP]}
    write("din", {"sequence": {"name": "din", "widths": [HIDDEN]}, "interaction": mlp}, weights_of("dice", 21),
          forward(False), buffers)
    write("din_softmax", {"sequence": {"name": "din", "widths": [HIDDEN], "activation": "sigmoid", "softmax": True},
                          "interaction": mlp}, weights_of("sigmoid", 22), forward(True))


if __name__ == "__main__":
    main()
