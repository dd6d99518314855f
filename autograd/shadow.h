// Parameters in the dtype of a computation.
//
// Parameters are f32; a computation in bf16 reads a bf16 copy, the shadow, which is kept with the parameter:
// written by the optimiser's step together with the parameter, and made anew when the parameter was changed in
// any other way.  Gradients go to the parameter, in its own dtype.
#pragma once

#include "mixrec/core/tensor.h"

namespace mixrec {

// `parameter` itself, detached, when it has this dtype; else its numbers in `dtype`, outside the graph.  May be
// called from several threads.
Tensor shadow_of(const Tensor& parameter, DType dtype);

}  // namespace mixrec
