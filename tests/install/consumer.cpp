// A program outside the tree: built against what `make install` left, by pkg-config and by CMake.
#include <cmath>
#include <cstdio>
#include <mixrec/mixrec.h>

int main() {
  using namespace mixrec;
  Tensor x = Tensor::from(std::vector<double>{1, 2, 3}).requires_grad();
  sum(x * x).backward();
  const double slope = x.grad().data<const double>()[2];
  std::printf("%s\nd(x^2)/dx at 3 is %g\n", version_text().c_str(), slope);
  return std::abs(slope - 6) < 1e-12 ? 0 : 1;
}
