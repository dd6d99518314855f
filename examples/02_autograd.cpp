// A tour of tensors and gradients: what every model is made of.
#include "mixrec/autograd/gradcheck.h"
#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"
#include "mixrec/ops/matmul.h"
#include "mixrec/ops/reduce.h"
#include "mixrec/ops/softmax.h"

#include <iostream>

using namespace mixrec;

int main() {
  // A tensor is a handle: copies share, clone() copies, views share storage.
  const Tensor x = Tensor::from({1., 2., 3., 4., 5., 6.}, {2, 3});
  std::cout << "x = " << x << "\n";
  std::cout << "its second column = " << x.select(1, 1) << "\n";

  // Ops on tensors that require a gradient are recorded; backward() walks the record.
  Tensor w = Tensor::from({.1, .2, .3, .4, .5, .6}, {3, 2}).requires_grad();
  const Tensor p = softmax(matmul(x, w));
  sum(p * p).backward();
  std::cout << "d sum(softmax(x w)²) / dw = " << w.grad() << "\n";

  // Every gradient of the library is checked like this, in f64.
  const auto result =
      gradcheck([&](const std::vector<Tensor>& in) { return softmax(matmul(x, in[0])); }, {w});
  std::cout << "against finite differences: relative error " << result.error << "\n";

  // An op of your own: compute, then say what its gradient is.  Saved() guards against in-place changes.
  const auto cube = [](const Tensor& t) {
    MR_OP("cube");
    return record((t * t * t).detach(), {t}, [&] {
      return [t = Saved(t)](const Tensor& dy) -> Grads { return {dy * t.get() * t.get() * 3.0}; };
    });
  };
  std::cout << "cube: relative error "
            << gradcheck([&](const std::vector<Tensor>& in) { return cube(in[0]); }, {w}).error << "\n";

  // Errors are sentences that name the op and both values.
  try {
    matmul(x, x);
  } catch (const Error& error) {
    std::cout << error.what() << "\n";
  }
}
