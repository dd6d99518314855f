"""Golden numbers for tests/metrics_test.cpp, from scikit-learn.

    python tests/oracle/metrics.py > tests/oracle/metrics.txt

The rows come from a small integer generator that the test repeats, so that only the answers are committed.
One line a case: name rows users levels weighted, then AUC, UAUC, UAUC by impressions, users used, users skipped,
log loss, normalised entropy, calibration.
"""

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score


def generator(seed):
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 33


def rows_of(seed, rows, users, levels, weighted):
    g = generator(seed)
    logit, label, weight, user = [], [], [], []
    for _ in range(rows):
        logit.append((next(g) % levels) / levels * 6 - 3)
        label.append(1 if next(g) % 100 < 35 + 10 * logit[-1] else 0)
        weight.append((next(g) % 5) / 2 if weighted else 1)
        user.append(next(g) % users)
    return (np.float32(logit).astype(float), np.array(label), np.array(weight, float), np.array(user))


def line(name, seed, rows, users, levels, weighted):
    logit, label, weight, user = rows_of(seed, rows, users, levels, weighted)
    keep = weight > 0
    logit, label, weight, user = logit[keep], label[keep], weight[keep], user[keep]
    p = 1 / (1 + np.exp(-logit))
    inside, impressions, skipped = [], [], 0
    for u in np.unique(user):
        at = user == u
        if len(set(label[at])) < 2:
            skipped += 1
            continue
        inside.append(roc_auc_score(label[at], logit[at], sample_weight=weight[at]))
        impressions.append(at.sum())
    base = np.full(len(p), np.average(label, weights=weight))
    loss = log_loss(label, p, sample_weight=weight)
    values = [
        roc_auc_score(label, logit, sample_weight=weight),
        np.mean(inside),
        np.average(inside, weights=impressions),
        len(inside),
        skipped,
        loss,
        loss / log_loss(label, base, sample_weight=weight),
        np.sum(weight * p) / np.sum(weight * label),
    ]
    print(name, seed, rows, users, levels, int(weighted), *(repr(float(v)) for v in values))


if __name__ == "__main__":
    line("random", 1, 5000, 400, 1000003, False)
    line("tied", 2, 5000, 400, 7, False)
    line("weighted", 3, 5000, 400, 1000003, True)
    line("tied_weighted", 4, 3000, 900, 3, True)
    line("one_user", 5, 200, 1, 50, False)
