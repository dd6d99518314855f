"""Golden numbers for tests/list_metrics_test.cpp, from scikit-learn and ranx.

    python tests/oracle/list_metrics.py > tests/oracle/list_metrics.txt

NDCG is scikit-learn's, which averages over ties.  ranx knows no ties: MRR and HR are the mean of its values over every
order of the tied rows of a list.  A list counts with the mean weight of its rows; lists without a positive are left out.
One line per case: name seed rows users levels weighted graded, then NDCG@1, @3, @10, MRR, HR@1, @3, lists of NDCG, lists
of MRR and HR, RMSE, MAE.
"""

import itertools

import numpy as np
from ranx import Qrels, Run, evaluate
from sklearn.metrics import mean_absolute_error, mean_squared_error, ndcg_score

from metrics import rows_of

TOP = (1, 3, 10)
RANX = ["mrr", "hit_rate@1", "hit_rate@3"]


def orders_of(scores):
    """Every order of the rows by falling score, over all orders of rows of one score."""
    runs = [np.flatnonzero(scores == s) for s in sorted(set(scores), reverse=True)]
    for order in itertools.product(*(itertools.permutations(run) for run in runs)):
        yield [int(i) for run in order for i in run]


def first_positive(scores, positive):
    qrels, run = {}, {}
    for o, order in enumerate(orders_of(scores)):
        qrels[str(o)] = {f"d{i}": 1 for i in np.flatnonzero(positive)}
        run[str(o)] = {f"d{i}": float(len(order) - rank) for rank, i in enumerate(order)}
    found = evaluate(Qrels(qrels), Run(run), RANX)
    return [found[name] for name in RANX]


def ndcg(scores, gains):
    if len(scores) == 1:
        return [1.0] * len(TOP)
    return [ndcg_score([gains], [scores], k=k) for k in TOP]


def line(name, seed, rows, users, levels, weighted, graded):
    logit, label, weight, user = rows_of(seed, rows, users, levels, weighted)
    label = label.astype(float)
    if graded:
        label = np.arange(rows) * 7 % 5 / 4
    keep = weight > 0
    logit, label, weight, user = logit[keep], label[keep], weight[keep], user[keep]
    judged, firsts, judged_weights, first_weights = [], [], [], []
    for u in np.unique(user):
        at = user == u
        if label[at].any():
            judged.append(ndcg(logit[at], 2 ** label[at] - 1))
            judged_weights.append(weight[at].mean())
        if (label[at] >= 0.75).any():
            firsts.append(first_positive(logit[at], label[at] >= 0.75))
            first_weights.append(weight[at].mean())
    p = 1 / (1 + np.exp(-logit))
    values = [
        *np.average(judged, axis=0, weights=judged_weights),
        *np.average(firsts, axis=0, weights=first_weights),
        len(judged),
        len(firsts),
        np.sqrt(mean_squared_error(label, p, sample_weight=weight)),
        mean_absolute_error(label, p, sample_weight=weight),
    ]
    print(name, seed, rows, users, levels, int(weighted), int(graded), *(repr(float(v)) for v in values))


if __name__ == "__main__":
    line("random", 31, 900, 60, 1000003, False, False)
    line("tied", 32, 400, 130, 3, False, False)
    line("constant", 33, 200, 70, 1, False, False)
    line("weighted", 34, 900, 60, 1000003, True, False)
    line("tied_weighted", 35, 400, 130, 4, True, False)
    line("graded", 36, 400, 130, 5, False, True)
    line("graded_weighted", 37, 400, 130, 3, True, True)
