// verify(): one checkpoint and the same rows through every way that this library computes probabilities.
//
//   evaluation   request-level batches, as while training, f32 on the host: what all others are compared with
//   expanded     every candidate a request of its own: batch.expanded()
//   masked       models with a masked form: all heads of every candidate at once ("decoupled": false)
//   decoupled    models with a user side: user_side() and then item_side(), request by request
//   scorer       Scorer::score, request by request, from the log's own cells; cached: again, from the kept user sides
//   bf16, CUDA   evaluation and scorer in bf16, and both precisions on a card
//   recorded     on a card: Scorer::score through recorded graphs, padded to their sizes
//
// Differences are in units in the last place of f32 probabilities, and in AUC.
#pragma once

#include "mixrec/models/model.h"

#include <cstdint>
#include <string>
#include <vector>

namespace mixrec {

struct VerifyArguments {
  std::string run;
  std::string data;     // another data folder than the run's
  int64_t rows = 2000;  // of the test part
};

struct VerifyBounds {
  double ulps = 0, auc = 0;
};

struct VerifyRow {
  std::string way;           // "scorer bf16"
  std::string skipped = "";  // why it could not be taken; "" = it was
  double ulps = 0, auc = 0;  // largest difference over rows and tasks; over tasks
  VerifyBounds bounds = {};

  bool holds() const { return ulps <= bounds.ulps && auc <= bounds.auc; }
};

// Units in the last place between two positive floats.
double ulps_between(float a, float b);

std::vector<VerifyRow> verify(const VerifyArguments& arguments, const std::vector<ModelEntry>& own_models);

// Prints the table; 1 when a difference is out of its bounds.
int run_verify(const VerifyArguments& arguments, const std::vector<ModelEntry>& own_models);

}  // namespace mixrec
