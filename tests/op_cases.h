// One table of op cases drives every check of every op: tests/op_test.cpp.
#pragma once

#include "mixrec/core/rng.h"
#include "mixrec/core/tensor.h"
#include "mixrec/tests/expected.h"

#include <functional>
#include <string>
#include <vector>

namespace mixrec::test {

struct OpCase {
  std::string op;     // the name in MR_OP
  std::string label;  // what is special about this case
  // Random inputs in f64.  Floating ones become leaves that require a gradient; integer ones are constants.
  std::function<std::vector<Tensor>(Rng&)> inputs;
  std::function<Tensor(const std::vector<Tensor>&)> run;  // a floating result

  // What `run` gives for these inputs, by loops over plain numbers (tests/expected.h).  Gradients cannot tell a wrong
  // forward: every op has a row with one.
  std::function<Plain(const Plains&)> expected = {};

  // Departures from the defaults, each with its reason.
  std::string no_gradient = {};       // why the op has none
  std::string no_low_precision = {};  // why f32 and bf16 are not compared with f64
  std::string dense_only = {};        // why row-strided inputs are not tried
};

const std::vector<OpCase>& op_cases();

// Building blocks for rows of the table.
Tensor normal(Rng& rng, const Shape& shape);                            // f64
Tensor uniform(Rng& rng, const Shape& shape, double low, double high);  // f64
Tensor integers(Rng& rng, const Shape& shape, int64_t below);           // i64 in [0, below)

// Offsets of segments with the given lengths.
Tensor offsets_of(const std::vector<int64_t>& lengths);

inline Offsets host(const Tensor& offsets) { return offsets.to_vector<int64_t>(); }

// A constant of a case, on the device of the inputs that it goes with.
inline Tensor beside(const Tensor& input, const Tensor& constant) { return constant.to(input.device()); }

// Families; each is one file of rows.
void add_view_cases(std::vector<OpCase>& cases);
void add_arithmetic_cases(std::vector<OpCase>& cases);
void add_matmul_cases(std::vector<OpCase>& cases);
void add_softmax_cases(std::vector<OpCase>& cases);
void add_request_cases(std::vector<OpCase>& cases);
void add_attend_cases(std::vector<OpCase>& cases);
void add_sequence_attention_cases(std::vector<OpCase>& cases);
void add_head_mixing_cases(std::vector<OpCase>& cases);
void add_embedding_cases(std::vector<OpCase>& cases);
void add_embedding_column_cases(std::vector<OpCase>& cases);
void add_swiglu_cases(std::vector<OpCase>& cases);
void add_ffn_cases(std::vector<OpCase>& cases);
void add_residual_ffn_cases(std::vector<OpCase>& cases);
void add_norm_cases(std::vector<OpCase>& cases);
void add_layout_cases(std::vector<OpCase>& cases);
void add_pointwise_cases(std::vector<OpCase>& cases);
void add_loss_cases(std::vector<OpCase>& cases);
void add_dropout_cases(std::vector<OpCase>& cases);
void add_max_cases(std::vector<OpCase>& cases);

}  // namespace mixrec::test
