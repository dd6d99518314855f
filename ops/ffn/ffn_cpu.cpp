// The feed-forward network on the CPU, in blocks of rows that stay in the second-level cache.
//
// Done as three products, a step writes and reads every intermediate, four and more times as wide as x, from
// memory, which costs as much time as a quarter of the multiplying.  Here the weights are packed once, and a
// block of rows takes the hidden units one chunk after the other: into the gate and up projections, through
// the gate, out of the down projection; backward the same way round, with the gradients of the weights added
// up as the blocks pass.  Activations are near and read where they lie, transposed ones too.
//
// Determinism: forward, an element is the same sums in the same order as in linear().  Backward, the gradients
// of weights are sums over blocks of kRows rows, in as many parts as the shape says, whose sums are added in
// order.
#include "mixrec/core/device.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/storage.h"
#include "mixrec/ops/ffn/ffn.h"
#include "mixrec/ops/gemm/gemm_panels.h"
#include "mixrec/ops/loops.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace mixrec::kernel {

namespace {

// Rows of a block: a multiple of every micro-kernel's height.
constexpr int64_t kRows = 252;
// The backward is cut in up to this many parts of at least so many rows, which may run side by side.
constexpr int64_t kParts = 16, kPartRows = 336;
// Scratch rows are this many floats longer than they need be, so that they do not fall on top of each other in
// the first-level cache.
constexpr int64_t kRowGap = 16;

// Memory handed out in pieces aligned to cache lines.  A whole large page, so that what is near here is near in
// the second-level cache too, where small pages of any address may meet.
class Workspace {
 public:
  explicit Workspace(int64_t floats)
      : storage_(std::max(kPage, static_cast<size_t>(floats) * sizeof(float)), kCpu) {}
  static int64_t size(int64_t floats) { return round_up(floats, 16); }
  float* take(int64_t floats) {
    float* piece = reinterpret_cast<float*>(storage_.data()) + used_;
    used_ += size(floats);
    return piece;
  }

 private:
  static constexpr size_t kPage = size_t{2} << 20;

  Storage storage_;
  int64_t used_ = 0;
};

// Some lines of a right factor B [depth, lines], packed once for all blocks of rows.
class PackedFactor {
 public:
  PackedFactor(const MicroKernel& kernel, Factor<float> factor, int64_t lines, int64_t depth)
      : kernel_(kernel), factor_(factor), lines_(lines), depth_(depth) {}

  int64_t size() const { return Workspace::size(packed_size(lines_, depth_, kernel_.width)); }
  void place(float* memory) { panels_ = memory; }
  void pack() const {
    for (int64_t i = 0; i < depth_blocks(depth_); ++i) {
      const Range depth = cut(depth_, 1, depth_blocks(depth_), i);
      packed(factor_, {0, lines_}, depth, kernel_.width, block(depth));
    }
  }

  // c[rows, lines] = a B [+ c], a [rows, depth] read where it lies.
  void multiply(const float* a, int64_t lda, int64_t rows, float* c, int64_t ldc, bool add) const {
    for (int64_t i = 0; i < depth_blocks(depth_); ++i) {
      const Range depth = cut(depth_, 1, depth_blocks(depth_), i);
      kernel_.run({rows, lines_, depth.size(), a + depth.begin, lda, 1, kernel_.height * lda, block(depth),
                   kernel_.width, kernel_.width * depth.size(), c, ldc, 1, add || i > 0, nullptr});
    }
  }

 private:
  float* block(Range depth) const { return panels_ + round_up(lines_, kernel_.width) * depth.begin; }

  MicroKernel kernel_;
  Factor<float> factor_;
  int64_t lines_, depth_;
  float* panels_ = nullptr;
};

// A chunk of the hidden units of one network: the factors of its products with gate_up and down, or in the
// backward with their transposes.
struct Chunk {
  Range units;
  PackedFactor gate, up, down;
};

class Networks {
 public:
  const MicroKernel kernel = current_kernel();
  const int64_t in, hidden, out, chunks;  // D, F, E; chunks of a network
  const int64_t row;  // floats from row to row of a matrix [rows, units of a chunk] in scratch

  Networks(Mat<const float> gate_up, Mat<const float> down, bool transposed)
      : in(gate_up.rows),
        hidden(down.rows),
        out(down.cols),
        chunks(depth_blocks(hidden)),
        row(round_up(divide_up(hidden, chunks), kernel.width) + kRowGap) {
    const auto factor = [&](const float* w, int64_t ld, int64_t lines, int64_t depth) {
      return transposed ? PackedFactor(kernel, {w, ld, true}, depth, lines)
                        : PackedFactor(kernel, {w, ld, false}, lines, depth);
    };
    int64_t floats = 0;
    for (int64_t i = 0; i < gate_up.batch * chunks; ++i) {
      const Range units = cut(hidden, 1, chunks, i % chunks);
      const float* first = gate_up.data + i / chunks * gate_up.batch_stride + units.begin;
      const float* second = down.row(i / chunks, units.begin);
      all_.push_back({units, factor(first, gate_up.row_stride, units.size(), in),
                      factor(first + hidden, gate_up.row_stride, units.size(), in),
                      factor(second, down.row_stride, out, units.size())});
      floats += all_.back().gate.size() + all_.back().up.size() + all_.back().down.size();
    }
    memory_ = std::make_unique<Workspace>(floats);
    std::vector<PackedFactor*> factors;
    for (Chunk& chunk : all_)
      for (PackedFactor* f : {&chunk.gate, &chunk.up, &chunk.down})
        f->place(memory_->take(f->size())), factors.push_back(f);
    parallel_for(std::ssize(factors), floats / std::ssize(factors), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) factors[static_cast<size_t>(i)]->pack();
    });
  }

  const Chunk& chunk(int64_t network, int64_t index) const {
    return all_[static_cast<size_t>(network * chunks + index)];
  }
  // Elementary operations that a row costs for each time it meets all weights.
  int64_t work() const { return hidden * (2 * in + out) / kMultipliesPerOperation; }

 private:
  std::vector<Chunk> all_;
  std::unique_ptr<Workspace> memory_;
};

// gate <- silu(gate) ⊙ up, after a copy of both into their places in `hidden` if there are any.
void activate(int64_t rows, int64_t units, int64_t row, float* gate, const float* up, float* gate_out,
              float* up_out, int64_t out_row) {
  for (int64_t i = 0; i < rows; ++i, gate += row, up += row) {
    simd::for_packs<float>(units, [=](auto at) {
      const auto g = at.load(gate), u = at.load(up);
      if (gate_out) at.store(gate_out, g), at.store(up_out, u);
      at.store(gate, g * simd::sigmoid(g) * u);
    });
    if (gate_out) gate_out += out_row, up_out += out_row;
  }
}

// From gate, up and dh: dgate, dup, and h in the place of dh.
void activate_backward(int64_t rows, int64_t units, const float* gate, const float* up, int64_t in_row,
                       float* dh, float* dgate, float* dup, int64_t row) {
  constexpr int64_t kLine = 16;
  for (int64_t i = 0; i < rows; ++i, gate += in_row, up += in_row, dh += row, dgate += row, dup += row) {
    // gate and up come from far, in stretches too short for the processor to see where they go on.
    for (int64_t j = 0; i + 1 < rows && j < units; j += kLine) {
      __builtin_prefetch(gate + in_row + j);
      __builtin_prefetch(up + in_row + j);
    }
    simd::for_packs<float>(units, [=](auto at) {
      const auto x = at.load(gate), u = at.load(up), d = at.load(dh), s = simd::sigmoid(x), silu = x * s;
      at.store(dgate, d * u * (s + silu * (1.0f - s)));
      at.store(dup, d * silu);
      at.store(dh, silu * u);
    });
  }
}

void add_rows(int64_t rows, int64_t columns, const float* from, int64_t from_row, float* to, int64_t to_row) {
  for (int64_t i = 0; i < rows; ++i, from += from_row, to += to_row)
    simd::for_packs<float>(columns, [=](auto at) { at.store(to, at.load(to) + at.load(from)); });
}

// The gradient of a weight while it is summed in parts: part 0 in its place, the others in memory of their own.
class PartialSums {
 public:
  PartialSums(Mat<float> gradient, int64_t parts)
      : gradient_(gradient),
        size_(gradient.data ? gradient.rows * gradient.cols : 0),
        parts_(parts),
        memory_((parts - 1) * gradient.batch * size_),
        sums_(memory_.take(0)) {}

  float* of(int64_t network, int64_t part) const {
    if (!gradient_.data) return nullptr;
    return part == 0 ? gradient_.row(network, 0) : sums_ + (network * (parts_ - 1) + part - 1) * size_;
  }
  void add_up() const {
    parallel_for(gradient_.batch * size_, parts_, [&](int64_t begin, int64_t end) {
      for (int64_t network = begin / size_; network * size_ < end; ++network) {
        const int64_t first = std::max(begin - network * size_, int64_t{0}),
                      last = std::min(end - network * size_, size_);
        for (int64_t part = 1; part < parts_; ++part)
          add_rows(1, last - first, of(network, part) + first, 0, of(network, 0) + first, 0);
      }
    });
  }

 private:
  Mat<float> gradient_;
  int64_t size_, parts_;
  Workspace memory_;
  float* sums_;
};

// The backward of a block of rows after the other, on one thread.
class Backward {
 public:
  Backward(const Networks& networks, int64_t network)
      : nets_(networks),
        network_(network),
        memory_(3 * Workspace::size(kRows * nets_.row) + packed_size(nets_.out, kRows, width())),
        dh_(units()),
        dgate_(units()),
        dup_(units()),
        dy_(memory_.take(packed_size(nets_.out, kRows, width()))) {}

  // Writes dx, and writes or adds to the gradients of the weights, where there are any.
  void run(Mat<const float> x, Mat<const float> hidden, Mat<const float> dy, Mat<float> dx, Range rows,
           float* dgate_up, float* ddown, bool add) {
    const int64_t n = rows.size();
    const auto at = [&](const auto& mat) { return mat.row(network_, rows.begin); };
    if (ddown) pack<float>({at(dy), dy.row_stride, false}, 0, nets_.out, 0, n, width(), dy_);
    for (int64_t c = 0; c < nets_.chunks; ++c) {
      const Chunk& chunk = nets_.chunk(network_, c);
      const int64_t first = chunk.units.begin, units = chunk.units.size(), row = nets_.row;
      chunk.down.multiply(at(dy), dy.row_stride, n, dh_, row, false);
      const float* gate = at(hidden) + first;
      activate_backward(n, units, gate, gate + nets_.hidden, hidden.row_stride, dh_, dgate_, dup_, row);
      if (dx.data) {
        chunk.gate.multiply(dgate_, row, n, at(dx), dx.row_stride, c > 0);
        chunk.up.multiply(dup_, row, n, at(dx), dx.row_stride, true);
      }
      if (dgate_up) {
        float* to = dgate_up + first;
        add_product(nets_.in, units, n, at(x), x.row_stride, dgate_, row, width(), to, 2 * nets_.hidden, add);
        add_product(nets_.in, units, n, at(x), x.row_stride, dup_, row, width(), to + nets_.hidden,
                    2 * nets_.hidden, add);
      }
      if (ddown) {
        add_product(units, nets_.out, n, dh_, row, dy_, width(), width() * n, ddown + first * nets_.out,
                    nets_.out, add);
      }
    }
  }

 private:
  int64_t width() const { return nets_.kernel.width; }
  float* units() { return memory_.take(kRows * nets_.row); }

  // c [+]= aᵀ b over a block's rows: a as it lies, b by panels b_panel apart.
  void add_product(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t lda, const float* b,
                   int64_t b_step, int64_t b_panel, float* c, int64_t ldc, bool add) const {
    const int64_t height = nets_.kernel.height;
    nets_.kernel.run({rows, columns, depth, a, 1, lda, height, b, b_step, b_panel, c, ldc, 1, add, nullptr});
  }

  const Networks& nets_;
  int64_t network_;
  Workspace memory_;
  float *dh_, *dgate_, *dup_, *dy_;
};

}  // namespace

template <class T>
void ffn(Cpu, Mat<const T> x, Mat<const T> gate_up, Mat<const T> down, Mat<const T> residual, Mat<T> hidden,
         Mat<T> y) {
  const Networks nets(gate_up, down, false);
  const int64_t blocks = divide_up(x.rows, kRows);
  parallel_for(x.batch * blocks, kRows * nets.work(), [&](int64_t begin, int64_t end) {
    Workspace memory(2 * Workspace::size(kRows * nets.row));
    float *gate = memory.take(kRows * nets.row), *up = memory.take(kRows * nets.row);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t network = block / blocks, first = block % blocks * kRows,
                    n = std::min(kRows, x.rows - first);
      for (int64_t c = 0; c < nets.chunks; ++c) {
        const Chunk& chunk = nets.chunk(network, c);
        chunk.gate.multiply(x.row(network, first), x.row_stride, n, gate, nets.row, false);
        chunk.up.multiply(x.row(network, first), x.row_stride, n, up, nets.row, false);
        float* saved = hidden.data ? hidden.row(network, first) + chunk.units.begin : nullptr;
        activate(n, chunk.units.size(), nets.row, gate, up, saved, saved ? saved + nets.hidden : nullptr,
                 hidden.row_stride);
        chunk.down.multiply(gate, nets.row, n, y.row(network, first), y.row_stride, c > 0);
      }
      if (residual.data)
        add_rows(n, nets.out, residual.row(network, first), residual.row_stride, y.row(network, first),
                 y.row_stride);
    }
  });
}

template <class T>
void ffn_backward(Cpu, Mat<const T> x, Mat<const T> gate_up, Mat<const T> down, Mat<const T> hidden,
                  Mat<const T> dy, Mat<T> dx, Mat<T> dgate_up, Mat<T> ddown) {
  const Networks nets(gate_up, down, true);
  const int64_t parts = std::clamp<int64_t>(std::min(kParts / x.batch, x.rows / kPartRows), 1, kParts);
  PartialSums first(dgate_up, parts), second(ddown, parts);
  parallel_for(x.batch * parts, x.rows / parts * 2 * nets.work(), [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t network = unit / parts, part = unit % parts;
      const Range rows = cut(x.rows, kRows, parts, part);
      Backward backward(nets, network);
      for (int64_t i = rows.begin; i < rows.end; i += kRows)
        backward.run(x, hidden, dy, dx, {i, std::min(i + kRows, rows.end)}, first.of(network, part),
                     second.of(network, part), i > rows.begin);
    }
  });
  first.add_up();
  second.add_up();
}

template void ffn(Cpu, Mat<const float>, Mat<const float>, Mat<const float>, Mat<const float>, Mat<float>,
                  Mat<float>);
template void ffn_backward(Cpu, Mat<const float>, Mat<const float>, Mat<const float>, Mat<const float>,
                           Mat<const float>, Mat<float>, Mat<float>, Mat<float>);

}  // namespace mixrec::kernel
