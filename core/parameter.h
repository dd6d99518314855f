// A named tensor of a model, as optimisers and checkpoints see it.
#pragma once

#include "mixrec/core/tensor.h"

#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

enum class ParameterKind : uint8_t {
  dense,   // gradients are dense: weights, gains, biases
  table,   // an embedding table [rows, width]: gradients arrive as look-ups, only touched rows are updated
  buffer,  // state that is saved but not trained
};

struct Parameter {
  std::string name;  // dotted path in the model: "blocks.0.query_mixer.norm.gain"
  Tensor value;
  ParameterKind kind = ParameterKind::dense;
};

// Whether all of `name` matches `pattern`: * stands for any text, ? for one character.
bool matches_pattern(std::string_view name, std::string_view pattern);

}  // namespace mixrec
