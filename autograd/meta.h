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

  Tensor grad;  // accumulated over backward calls
  // Where the first gradient is written when the optimiser keeps gradients in one flat buffer, and the last
  // gradient that was: while somebody holds it, or a view of it, the buffer is left alone.
  Tensor grad_buffer;
  std::weak_ptr<Storage> grad_in_buffer;
  Tensor shadow;                // the leaf in another dtype (autograd/shadow.h),
  uint32_t shadow_version = 0;  // valid while this is the leaf's version
  std::vector<Lookup> lookups;
  std::function<void()> on_final;  // see on_gradient_final()

  std::shared_ptr<Node> node;  // the op that made this tensor; null for leaves
  int output = 0;              // which of its outputs

  // Whether a new gradient may be written to grad_buffer.  A graph that is recorded always writes there.
  bool buffer_free() const;

  ~Meta();
};

// Autograd's record of a leaf, made on first use.
std::shared_ptr<Meta> leaf_meta(const Tensor& x);

// Calls `hook` once in every backward that reaches `leaf`, when its gradient is final, while the rest of the backward
// still runs (to overlap it with communication).  What checkpoint() will use shows only when it recomputes, so no
// gradient is final before the last recomputation of the backward has ended.  An empty function removes the hook.
void on_gradient_final(const Tensor& leaf, std::function<void()> hook);

// Forgets a leaf's gradient, pending look-ups and copies in another dtype, and where an optimiser had its gradient
// written: the leaf is about to get other memory.
void forget_gradient(const Tensor& leaf);

// Sums the look-ups into a dense gradient [rows, width]: for inspection and tests, not for training.
Tensor dense_table_gradient(const Tensor& table, const std::vector<Lookup>& lookups);

}  // namespace mixrec::autograd
