// What the ops of the table should give, by loops over plain numbers that follow the formulas in the ops' headers.
// Nothing here or in expected_*.cpp calls the library: a test sees to it.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace mixrec::test {

// Numbers in row-major order.  x(i, j, k) is an element.
struct Plain {
  std::vector<int64_t> shape;
  std::vector<double> values;

  static Plain zeros(const std::vector<int64_t>& shape);

  int64_t cols() const { return shape.empty() ? 1 : shape.back(); }
  int64_t rows() const;  // of the last dimension

  template <class... Index>
  int64_t place(Index... index) const {
    int64_t at = 0;
    size_t dim = 0;
    ((at = at * shape[dim++] + static_cast<int64_t>(index)), ...);
    return at;
  }
  template <class... Index>
  double& operator()(Index... index) {
    return values[static_cast<size_t>(place(index...))];
  }
  template <class... Index>
  double operator()(Index... index) const {
    return values[static_cast<size_t>(place(index...))];
  }
};

using Plains = std::vector<Plain>;
using Offsets = std::vector<int64_t>;
using Scalar = std::function<double(double)>;

namespace expected {

// Element by element, and of two operands that broadcast.
Plain map(const Plain& x, const Scalar& f);
Plain combine(const Plain& a, const Plain& b, const std::function<double(double, double)>& f);
Plain plus(const Plain& a, const Plain& b);
Plain philox_dropout(const Plain& x, double rate, uint64_t seed);  // from position 0 of the stream
double to_bf16(double x);                                          // the nearest, ties to even

// Views and layouts.
Plain reshaped(const Plain& x, const std::vector<int64_t>& shape);
Plain slice(const Plain& x, int dim, int64_t start, int64_t length);
Plain swapped(const Plain& x, int a, int b);
Plain joined(const Plains& parts, int dim);
Plain taken(const Plain& x, const Plain& ids);  // rows along dimension 0; ids of any shape

// Reductions of one dimension, which is removed.  `best` gives the largest.
Plain total(const Plain& x, int dim);
Plain best(const Plain& x, int dim);

// Over the last dimension.
Plain softmax(const Plain& x);
Plain logsumexp(const Plain& x);
Plain rms_norm(const Plain& x, const Plain* gain, double eps);
Plain layer_norm(const Plain& x, const Plain* gain, const Plain* bias, double eps);

// Products: of the last two dimensions, b with or without a batch; and of every head [B, N, K] with its own weight.
Plain product(const Plain& a, const Plain& b);
Plain per_head(const Plain& x, const Plain& w);

Plain swiglu(const Plain& gate, const Plain& up);
Plain swiglu(const Plain& gate_up);
Plain ffn(const Plain& x, const Plain& gate_up, const Plain& down);  // one network, or one per head

// Requests: [R, ...] and [C, ...].
Plain expanded(const Plain& x, const Offsets& offsets);
Plain segment_sums(const Plain& x, const Offsets& offsets, bool mean);
Plain head_mixing(const Plain& x, int64_t user_heads);
Plain side_mixing(const Plain& own, const Plain& residual, const Plain* shared, const Offsets& offsets);
Plain attend(const Plain& u, const Plain& h, const Offsets& events, const Offsets& candidates);
Plain cross_attention(const Plain& q, const Plain& key, const Plain& value, const Plain& h,
                      const Offsets& events, const Offsets& candidates);

// Losses; an entry of weight 0 does not count.  A normaliser of 0 stands for the documented count.
double bce(const Plain& logits, const Plain& labels, const Plain* weights, double normaliser);
Plain bce_per_task(const Plain& logits, const Plain& labels, const Plain* weights);
double mse(const Plain& prediction, const Plain& target, double normaliser);
double softmax_cross_entropy(const Plain& logits, const Plain& labels);

}  // namespace expected
}  // namespace mixrec::test
