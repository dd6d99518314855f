// Metrics of one ranked list: the rows of a request or of a user, sorted by falling score.
//
// Rows of equal score have no order of their own.  Every metric is its expected value over all orders of the rows in
// each run of equal scores, every order as likely as the next, so that it depends neither on the order of the log nor
// on the sort.  A list without a positive has no MRR and no HR, a list in which every label is 0 has no NDCG: NaN.
#pragma once

#include <cstdint>
#include <span>

namespace mixrec {

struct RankedRow {
  float score = 0, label = 0;
  bool positive = false;
};

// sum over ranks r <= k of (2^y_r - 1) / log2(r + 1), over the same sum of the best order of the list
// (Burges et al., ICML 2005).  The label y in [0, 1] is the grade; with labels of 0 and 1 the gains are the labels.
double list_ndcg(std::span<const RankedRow> rows, int64_t k);

// 1 / rank of the first positive.
double list_mrr(std::span<const RankedRow> rows);

// 1 when a positive is among the first k, else 0; the probability of it where ties decide.
double list_hit(std::span<const RankedRow> rows, int64_t k);

}  // namespace mixrec
