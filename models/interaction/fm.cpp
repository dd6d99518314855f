#include "mixrec/models/interaction/fm.h"

#include "mixrec/nn/init.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/cast.h"
#include "mixrec/ops/pointwise.h"
#include "mixrec/ops/reduce.h"

namespace mixrec {

LogisticRegression::LogisticRegression(const InteractionInput& input, const NoOptions&, Rng&)
    : bias(constant_parameter({input.tasks}, 0)) {}

Interaction LogisticRegression::forward(const Inputs& in, Pass&) const {
  return {.logits = in.first_order() + bias};
}

Tensor pairwise_products(const Tensor& fields) {
  const Tensor v = fields.dtype() == bf16 ? cast(fields, f32) : fields;
  const Tensor pairs = square(sum(v, 1)) - sum(square(v), 1);
  return affine(sum(pairs, 1), .5, 0).reshape({v.dim(0), 1});
}

Interaction Fm::forward(const Inputs& in, Pass& pass) const {
  return {.logits = linear_.forward(in, pass).logits + pairwise_products(in.fields())};
}

InteractionEntry logistic_regression_entry() {
  return interaction_entry<LogisticRegression, NoOptions>("logistic_regression",
                                                          "one weight per feature value");
}
InteractionEntry fm_entry() {
  return interaction_entry<Fm, NoOptions>("fm", "factorisation machine: weights and products of all pairs");
}

}  // namespace mixrec
