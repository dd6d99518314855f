"""Golden file of DeepFM (Guo et al., IJCAI 2017, https://arxiv.org/abs/1703.04247) in f64, from its equations.

    python tests/oracle/deepfm_golden.py       # needs numpy; writes deepfm.safetensors

    logit_k = b_k + sum_i w_ik[feature i] + sum_{i<j} <v_i, v_j> + y_k(DNN([e_1, ..., e_F]))

e_i are the embedded features, v_i = e_i P_i where e_i is not K wide, else e_i.  The mean event, projected to K, is one
more field of both sides; it has no first-order weight.  In the DNN's input it stands behind the features of the request.
"""

import numpy as np

from stack_golden import *

K, DEEP = 3, 6


def weights_of(seed):
    g = np.random.default_rng(seed)
    w = {**tables(g), **tables(g, "embedding.first_order.", len(TASKS))}
    for name, _, d in REQUEST + CANDIDATE:
        if d != K:
            w[f"embedding.field_projections.{name}.weight"] = normal(g, d, K)
    w["projection.seen.weight"] = normal(g, width(EVENT), K)
    w["interaction.bias"] = normal(g, len(TASKS), scale=0.3)
    layer(w, g, "interaction.deep.0", width(REQUEST) + K + width(CANDIDATE), DEEP)
    heads(w, g, DEEP)
    return w


def forward(w):
    logits = []
    for request, candidate in rows():
        pooled = mean_event(w, request) @ w["projection.seen.weight"]
        of_request = fields(w, REQUEST, "features", request)
        of_candidate = fields(w, CANDIDATE, "features", candidate)
        vectors = [pooled]
        for (name, _, d), e in zip(REQUEST + CANDIDATE, of_request + of_candidate):
            vectors.append(e if d == K else e @ w[f"embedding.field_projections.{name}.weight"])
        pairs = sum(vectors[i] @ vectors[j] for i in range(len(vectors)) for j in range(i))
        first = sum(fields(w, REQUEST, "features", request, "embedding.first_order.") +
                    fields(w, CANDIDATE, "features", candidate, "embedding.first_order."))
        deep = linear(w, "interaction.deep.0", np.concatenate(of_request + [pooled] + of_candidate))
        logits.append(w["interaction.bias"] + first + pairs + head_logits(w, np.maximum(deep, 0)))
    return np.array(logits)


def main():
    write("deepfm", {"sequence": {"name": "mean_pooling"}, "field_width": K,
                     "interaction": {"name": "deepfm", "widths": [DEEP], "activation": "relu"}}, weights_of(41), forward)


if __name__ == "__main__":
    main()
