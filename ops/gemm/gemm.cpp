#include "mixrec/ops/gemm/gemm.h"

#include "mixrec/core/cpu.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/simd.h"
#include "mixrec/ops/gemm/gemm_panels.h"

#include <algorithm>
#include <memory>
#include <new>
#include <type_traits>

namespace mixrec::kernel {

namespace {

// Rows of A packed at a time (they stay in the second-level cache), and the largest tile of C that a thread
// takes on.
constexpr int64_t kPackedRows = 168, kTileRows = 2016, kTileColumns = 1024;
// Sums longer than this may be cut in parts, when A is transposed and C has no more than this many elements.
constexpr int64_t kPartDepth = 2048, kMostParts = 8, kPartElements = 1 << 20;
// Scratch memory above this is given back after use.
constexpr int64_t kKeepFloats = 1 << 24;
// Uninitialised memory, aligned to cache lines and kept from call to call.
class Scratch {
 public:
  float* reserve(int64_t floats) {
    if (floats > size_) memory_.reset(allocate(floats)), size_ = floats;
    return memory_.get();
  }
  void trim() {
    if (size_ > kKeepFloats) memory_.reset(), size_ = 0;
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  static float* allocate(int64_t floats) {
    return static_cast<float*>(::operator new(static_cast<size_t>(floats) * sizeof(float), kAlignment));
  }
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<float, Free> memory_;
  int64_t size_ = 0;
};

struct ThreadScratch {
  Scratch a, b, sums;
};

thread_local ThreadScratch scratch;

template <class T>
Panels packed(const Factor<T>& factor, Range lines, Range depth, int64_t width, Scratch& memory) {
  return packed(factor, lines, depth, width, memory.reserve(packed_size(lines.size(), depth.size(), width)));
}

// How a product is cut up.  The parts of k change the bits and depend on the shape only; the tiles of C do
// not change them and follow the thread count.
struct Plan {
  MicroKernel kernel = current_kernel();
  int64_t parts, row_tiles, column_tiles;

  explicit Plan(const Gemm& g) {
    const bool few_outputs = g.m * g.n <= kPartElements;
    parts = g.transpose_a && few_outputs ? std::clamp<int64_t>(g.k / kPartDepth, 1, kMostParts) : 1;
    row_tiles = divide_up(g.m, kTileRows);
    column_tiles = divide_up(g.n, kTileColumns);
    spread(g, num_threads());
  }
  int64_t units(const Gemm& g) const { return g.batch * parts * row_tiles * column_tiles; }

 private:
  // Cuts further until there is a tile for every thread, along the side that repeats less packing, and then
  // until the threads share the tiles evenly.
  void spread(const Gemm& g, int64_t threads) {
    const int64_t row_panels = divide_up(g.m, kernel.height), column_panels = divide_up(g.n, kernel.width);
    while (units(g) < threads) {
      const bool rows_left = row_tiles < row_panels, columns_left = column_tiles < column_panels;
      if (!rows_left && !columns_left) return;
      ++(rows_left && (!columns_left || g.n <= g.m) ? row_tiles : column_tiles);
    }
    if (units(g) >= 8 * threads) return;
    const int64_t enough = row_tiles, most = std::min(row_panels, enough + threads);
    while (units(g) % threads != 0 && row_tiles < most) ++row_tiles;
    if (units(g) % threads != 0) row_tiles = enough;
  }
};

// A tile of C, in float: which rows and columns, over which part of k, and where its first element goes.
struct Tile {
  Range rows, columns, depth;
  float* c;
  int64_t ldc;
  float alpha;
  bool add;
  const float* bias;  // of the first column, or null
};

template <class T>
void multiply(const MicroKernel& kernel, const Factor<T>& a, const Factor<T>& b, const Tile& tile) {
  // Panels that are used a few times only are read where they lie, if they can be: B in whole vectors.
  constexpr bool floats = std::is_same_v<T, float>;
  const bool a_in_place = floats && (tile.columns.size() <= 4 * kernel.width || tile.rows.size() == 1);
  const bool b_in_place = floats && !b.line_major && tile.rows.size() <= 2 * kernel.height &&
                          tile.columns.size() >= kernel.vector;
  const int64_t whole = tile.columns.size() / kernel.vector * kernel.vector;
  if (b_in_place && tile.columns.size() != whole) {
    Tile left = tile, right = tile;
    left.columns.end = right.columns.begin = tile.columns.begin + whole;
    right.c += whole;
    if (right.bias) right.bias += whole;
    multiply(kernel, a, b, left);
    return multiply(kernel, a, b, right);
  }
  const int64_t blocks = depth_blocks(tile.depth.size());
  const int64_t packed_rows = kPackedRows / kernel.height * kernel.height;
  for (int64_t block = 0; block < blocks; ++block) {
    Range depth = cut(tile.depth.size(), 1, blocks, block);
    depth = {tile.depth.begin + depth.begin, tile.depth.begin + depth.end};
    Panels pb;
    if constexpr (floats)
      if (b_in_place) pb = in_place(b, tile.columns, depth, kernel.width);
    if (!b_in_place) pb = packed(b, tile.columns, depth, kernel.width, scratch.b);

    for (int64_t i = tile.rows.begin; i < tile.rows.end; i += packed_rows) {
      const Range rows{i, std::min(i + packed_rows, tile.rows.end)};
      Panels pa;
      if constexpr (floats)
        if (a_in_place) pa = in_place(a, rows, depth, kernel.height);
      if (!a_in_place) pa = packed(a, rows, depth, kernel.height, scratch.a);
      kernel.run({rows.size(), tile.columns.size(), depth.size(), pa.data, pa.line_step, pa.depth_step,
                  pa.panel_step, pb.data, pb.depth_step, pb.panel_step,
                  tile.c + (i - tile.rows.begin) * tile.ldc, tile.ldc, tile.alpha, tile.add || block > 0,
                  block == 0 ? tile.bias : nullptr});
    }
  }
}

// c[rows, columns] = the `parts` matrices of float sums added in order [+ c] [+ bias].
template <class Out>
void finish(Out* c, int64_t ldc, int64_t rows, int64_t columns, const float* sums, int64_t ld, int64_t parts,
            int64_t part_stride, bool add, const Out* bias) {
  constexpr int64_t lanes = simd::Floats8::size;
  for (int64_t i = 0; i < rows; ++i, c += ldc, sums += ld)
    for (int64_t j = 0; j < columns; j += lanes) {
      const int64_t count = std::min(lanes, columns - j);
      simd::Floats8 value = simd::load(sums + j, count);
      for (int64_t part = 1; part < parts; ++part) value += simd::load(sums + part * part_stride + j, count);
      if (add) value += simd::load(c + j, count);
      if (bias) value += simd::load(bias + j, count);
      simd::store(c + j, value, count);
    }
}

template <class T>
Factor<T> factor_a(const Gemm& g, const T* a, int64_t item) {
  return {a + item * g.stride_a, g.lda, !g.transpose_a};
}
template <class T>
Factor<T> factor_b(const Gemm& g, const T* b, int64_t item) {
  return {b + item * g.stride_b, g.ldb, g.transpose_b};
}

// One thread a tile; sums go straight into a float C, and through scratch into a bfloat16 one.
template <class T, class Out>
void multiply_tiles(const Plan& plan, const Gemm& g, const T* a, const T* b, Out* c, const Out* bias) {
  const int64_t tiles = plan.units(g), work = g.batch * g.m * g.n * g.k / (tiles * kMultipliesPerOperation);
  parallel_for(tiles, work, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t item = unit / (plan.row_tiles * plan.column_tiles);
      const Range rows =
          cut(g.m, plan.kernel.height, plan.row_tiles, unit / plan.column_tiles % plan.row_tiles);
      const Range columns = cut(g.n, plan.kernel.width, plan.column_tiles, unit % plan.column_tiles);
      Out* to = c + item * g.stride_c + rows.begin * g.ldc + columns.begin;
      const Out* bias_to = bias ? bias + item * g.stride_bias + columns.begin : nullptr;
      Tile tile{rows, columns, {0, g.k}, nullptr, g.ldc, static_cast<float>(g.alpha), g.accumulate, nullptr};
      if constexpr (std::is_same_v<Out, float>) {
        tile.c = to, tile.bias = bias_to;
        multiply(plan.kernel, factor_a(g, a, item), factor_b(g, b, item), tile);
      } else {
        tile.c = scratch.sums.reserve(rows.size() * columns.size());
        tile.ldc = columns.size(), tile.add = false;
        multiply(plan.kernel, factor_a(g, a, item), factor_b(g, b, item), tile);
        finish(to, g.ldc, rows.size(), columns.size(), tile.c, tile.ldc, 1, 0, g.accumulate, bias_to);
      }
    }
  });
}

// One thread a tile of one part of k, then the parts are added up.
template <class T, class Out>
void multiply_parts(const Plan& plan, const Gemm& g, const T* a, const T* b, Out* c, const Out* bias) {
  const int64_t size = g.m * g.n, units = plan.units(g), tiles = plan.row_tiles * plan.column_tiles;
  float* sums = scratch.sums.reserve(g.batch * plan.parts * size);
  parallel_for(
      units, g.batch * size * g.k / (units * kMultipliesPerOperation), [&](int64_t begin, int64_t end) {
        for (int64_t unit = begin; unit < end; ++unit) {
          const int64_t item = unit / tiles / plan.parts;
          const Range rows = cut(g.m, plan.kernel.height, plan.row_tiles, unit % tiles / plan.column_tiles);
          const Range columns = cut(g.n, plan.kernel.width, plan.column_tiles, unit % plan.column_tiles);
          const Range depth = cut(g.k, 1, plan.parts, unit / tiles % plan.parts);
          multiply(plan.kernel, factor_a(g, a, item), factor_b(g, b, item),
                   {rows, columns, depth, sums + unit / tiles * size + rows.begin * g.n + columns.begin, g.n,
                    static_cast<float>(g.alpha), false, nullptr});
        }
      });
  parallel_for(g.batch * g.m, g.n * plan.parts / 4, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t item = row / g.m, i = row % g.m;
      finish(c + item * g.stride_c + i * g.ldc, g.ldc, 1, g.n, sums + (item * plan.parts * g.m + i) * g.n,
             g.n, plan.parts, size, g.accumulate, bias ? bias + item * g.stride_bias : nullptr);
    }
  });
}

template <class T, class Out>
void run(const Gemm& g, const T* a, const T* b, Out* c, const Out* bias) {
  check(g);
  if (g.m == 0 || g.n == 0 || g.batch == 0) return;
  const Plan plan(g);
  plan.parts > 1 ? multiply_parts(plan, g, a, b, c, bias) : multiply_tiles(plan, g, a, b, c, bias);
  scratch.sums.trim();
}

}  // namespace

MicroKernel current_kernel() {
  switch (current_isa()) {
    case Isa::avx512:
      return {14, 32, 16, gemm_block_avx512};
    case Isa::avx2:
      return {6, 16, 8, gemm_block_avx2};
    default:
      return {4, 8, 4, gemm_block_baseline};
  }
}

void check(const Gemm& g) {
  MR_CHECK(g.m >= 0 && g.n >= 0 && g.k >= 0 && g.batch >= 0, "sizes must not be negative, got m = ", g.m,
           ", n = ", g.n, ", k = ", g.k, ", batch = ", g.batch);
  const auto check_rows = [](const char* which, int64_t ld, int64_t row) {
    MR_CHECK(ld >= row, "rows of ", which, " overlap: they are ", ld, " apart and ", row, " long");
  };
  check_rows("A", g.lda, g.transpose_a ? g.m : g.k);
  check_rows("B", g.ldb, g.transpose_b ? g.k : g.n);
  check_rows("C", g.ldc, g.n);
}

void gemm(const Gemm& shape, const float* a, const float* b, float* c, const float* bias) {
  run(shape, a, b, c, bias);
}
void gemm(const Gemm& shape, const bfloat16* a, const bfloat16* b, bfloat16* c, const bfloat16* bias) {
  run(shape, a, b, c, bias);
}
void gemm(const Gemm& shape, const bfloat16* a, const bfloat16* b, float* c, const float* bias) {
  run(shape, a, b, c, bias);
}

}  // namespace mixrec::kernel
