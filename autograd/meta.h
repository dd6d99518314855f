// What autograd knows of one tensor, and the pending look-ups of embedding tables.
#pragma once

#include "mixrec/core/tensor.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace mixrec::autograd {

struct Node;

// One backward of a table look-up: row ids[j] of the table receives weights[j] * dy[rows[j]].
//
// Table gradients are never dense and never applied early: the optimiser takes all look-ups of a table since
// the last step together, so a table that was used twice gets one step.
struct Lookup {
  Tensor ids;      // i64 [n]
  Tensor dy;       // [m, width], rows may be strided; in the table's dtype, or bf16 for an f32 table
  Tensor rows;     // i64 [n]; undefined: rows[j] = j
  Tensor weights;  // dtype of the table, [n]; undefined: 1
};

struct Meta {
  bool requires_grad = false;  // set by the user, on leaves

  Tensor grad;         // accumulated over backward calls
  Tensor grad_buffer;  // where the first gradient is written when the optimiser keeps gradients in one flat
                       // buffer
  Tensor shadow;       // the leaf in another dtype (autograd/shadow.h),
  uint32_t shadow_version = 0;  // valid while this is the leaf's version
  std::vector<Lookup> lookups;
  std::function<void()> on_final;  // see on_gradient_final()

  std::shared_ptr<Node> node;  // the op that made this tensor; null for leaves
  int output = 0;              // which of its outputs

  ~Meta();
};

// Autograd's record of a leaf, made on first use.
std::shared_ptr<Meta> leaf_meta(const Tensor& x);

// Calls `hook` whenever a backward has finished with the gradient of `leaf`, while the rest of the backward
// still runs (to overlap it with communication).  An empty function removes the hook.
void on_gradient_final(const Tensor& leaf, std::function<void()> hook);

// Sums the look-ups into a dense gradient [rows, width]: for inspection and tests, not for training.
Tensor dense_table_gradient(const Tensor& table, const std::vector<Lookup>& lookups);

}  // namespace mixrec::autograd
