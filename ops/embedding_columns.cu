// Rows of embedded features: a block takes some rows of one column, so that what kind of column it is is the
// same for all of its threads; a few threads share a row, in pieces of 16 bytes where the column allows it.
// All columns are one launch: their descriptions travel as its argument.
//
// Floor: y written once, table rows and ids read once.  A column of eight bf16 is half a sector of memory in
// each row; the blocks of its neighbours run at the same time, and the cache puts sectors together.
//
// vector_gradients: a block takes a chunk of the rows of one column, threads below each other every so many
// rows; their sums are added in halves, and those of chunks in order by a second kernel.
#include "mixrec/core/device_errors.cuh"
#include "mixrec/ops/embedding_columns.h"
#include "mixrec/ops/rows.cuh"

namespace mixrec::kernel {
namespace {

constexpr int kThreads = rows::kThreads;
constexpr int kWays = 4;    // rows of a mean that are under way together
constexpr int kBatch = 40;  // columns a launch

struct Column {
  ColumnView view;
  int64_t blocks_end;  // of this column, behind those of the columns before it
  int lanes;           // of a row
  bool vectors;
};

struct Batch {
  Column at[kBatch];
  int count;
};
static_assert(sizeof(Batch) < 4000);  // of 4 KiB of arguments

// One piece of a row: kPiece elements from `col` on.
template <class X, class Y, int kPiece>
__device__ inline rows::Piece<Y, kPiece> converted(const X* from) {
  const auto read = rows::read<kPiece>(from);
  rows::Piece<Y, kPiece> piece;
#pragma unroll
  for (int k = 0; k < kPiece; ++k) piece.at[k] = static_cast<Y>(read.at[k]);
  return piece;
}

template <class X, class Y, int kPiece>
__device__ inline rows::Piece<Y, kPiece> mean_piece(const ColumnView& column, int64_t begin, int64_t end,
                                                    int64_t col, const cuda::IdCheck& check) {
  using A = acc_t<X>;
  const auto* const table = static_cast<const X*>(column.source);
  A sum[kPiece] = {};
  for (int64_t i = begin; i < end; i += kWays) {
    rows::Piece<X, kPiece> parts[kWays];
#pragma unroll
    for (int way = 0; way < kWays; ++way) {
      parts[way] = {};
      const int64_t id = column.ids[min(i + way, end - 1)];
      if (i + way < end && check.passes(id, i + way, column.source_rows))
        parts[way] = rows::read<kPiece>(table + id * column.source_stride + col);
    }
#pragma unroll
    for (int way = 0; way < kWays; ++way) {
#pragma unroll
      for (int k = 0; k < kPiece; ++k) sum[k] += static_cast<A>(parts[way].at[k]);
    }
  }
  const A scale = end > begin ? A(1) / static_cast<A>(end - begin) : A(1);
  rows::Piece<Y, kPiece> piece;
#pragma unroll
  for (int k = 0; k < kPiece; ++k) piece.at[k] = static_cast<Y>(sum[k] * scale);
  return piece;
}

// Calls write(col, piece) for this thread's pieces of row r of a column.
template <class X, class Y, int kPiece>
__device__ inline void write_row(const ColumnView& column, int64_t r, int lane, int lanes, Y* to,
                                 const cuda::IdCheck& check) {
  using A = acc_t<X>;
  const int64_t step = static_cast<int64_t>(lanes) * kPiece, first = static_cast<int64_t>(lane) * kPiece;
  const auto* const source = static_cast<const X*>(column.source);
  if (!source) {
    for (int64_t col = first; col < column.width; col += step)
      rows::write(to + col, rows::Piece<Y, kPiece>{});
    return;
  }
  switch (column.kind) {
    case EmbeddingColumn::Kind::row: {
      const int64_t id = column.ids[r];
      const bool known = check.passes(id, r, column.source_rows);
      const X* const from = source + (known ? id * column.source_stride : 0);
      for (int64_t col = first; col < column.width; col += step)
        rows::write(to + col, known ? converted<X, Y, kPiece>(from + col) : rows::Piece<Y, kPiece>{});
      return;
    }
    case EmbeddingColumn::Kind::mean: {
      const int64_t begin = column.offsets[r], end = column.offsets[r + 1];
      for (int64_t col = first; col < column.width; col += step)
        rows::write(to + col, mean_piece<X, Y, kPiece>(column, begin, end, col, check));
      return;
    }
    case EmbeddingColumn::Kind::product: {
      const auto value = static_cast<A>(column.values[r]);
      for (int64_t col = first; col < column.width; col += step) {
        const auto vector = rows::read<kPiece>(source + col);
        rows::Piece<Y, kPiece> piece;
#pragma unroll
        for (int k = 0; k < kPiece; ++k) piece.at[k] = static_cast<Y>(value * static_cast<A>(vector.at[k]));
        rows::write(to + col, piece);
      }
      return;
    }
    case EmbeddingColumn::Kind::repeat: {
      int64_t s = r;
      bool inside = true;
      if (column.offsets) {
        s = rows::segment_of(column.offsets, column.source_rows, r);
        inside = column.offsets[s] <= r && r < column.offsets[s + 1];
      }
      const Y* const from = static_cast<const Y*>(column.source) + s * column.source_stride;
      for (int64_t col = first; col < column.width; col += step)
        rows::write(to + col, inside ? rows::read<kPiece>(from + col) : rows::Piece<Y, kPiece>{});
      return;
    }
  }
}

template <class X, class Y>
__global__ void __launch_bounds__(kThreads)
    write_columns(const __grid_constant__ Batch batch, Mat<Y> y, cuda::IdCheck check) {
  int i = 0;
  int64_t block = blockIdx.x;
  while (i + 1 < batch.count && block >= batch.at[i].blocks_end) ++i;
  if (i > 0) block -= batch.at[i - 1].blocks_end;
  const Column& column = batch.at[i];
  const int64_t r = block * (kThreads / column.lanes) + threadIdx.x / column.lanes;
  if (r >= y.count()) return;
  const int lane = static_cast<int>(threadIdx.x) % column.lanes;
  Y* const to = y.row(r) + column.view.begin;
  if (column.vectors) {
    write_row<X, Y, rows::kPiece<X, Y>>(column.view, r, lane, column.lanes, to, check);
  } else {
    write_row<X, Y, 1>(column.view, r, lane, column.lanes, to, check);
  }
}

// Whether a column can be read and written in pieces.
template <class X, class Y>
bool in_pieces(const ColumnView& column, const Mat<Y>& y) {
  const Mat<Y> to{y.data + column.begin, 1, y.count(), column.width, 0, y.row_stride};
  if (column.width % rows::kPiece<X, Y> != 0 || !cuda::vectorisable(to)) return false;
  if (column.kind == EmbeddingColumn::Kind::repeat)
    return cuda::vectorisable(static_cast<const Y*>(column.source), column.width, column.source_stride);
  return cuda::vectorisable(static_cast<const X*>(column.source), column.width, column.source_stride);
}

// ---- Gradients of vectors. ----

constexpr int64_t kLeastChunk = 512, kMostChunks = 128;

template <class X>
struct Vectors {
  VectorGradient<X> at[kBatch];
  int64_t place[kBatch];  // of a vector's partial sums among those of all
  int64_t total;          // elements of all
};

// Sums over the rows of chunk blockIdx.y of vector blockIdx.x; with one chunk they are the gradient.
template <class X, class Y>
__global__ void __launch_bounds__(kThreads)
    sum_chunks(const __grid_constant__ Vectors<X> vectors, Mat<const Y> dy, int64_t chunk, acc_t<X>* sums) {
  using A = acc_t<X>;
  __shared__ A partial[kThreads];
  const VectorGradient<X>& vector = vectors.at[blockIdx.x];
  int lanes = 1;
  while (lanes < cuda::kWarp && lanes < vector.width) lanes *= 2;
  const int lane = static_cast<int>(threadIdx.x) % lanes, down = static_cast<int>(threadIdx.x) / lanes;
  const int64_t begin = blockIdx.y * chunk, end = min(begin + chunk, dy.count());
  for (int64_t first = 0; first < vector.width; first += lanes) {
    const int64_t col = first + lane;
    A sum = 0;
    if (col < vector.width) {
#pragma unroll 8
      for (int64_t r = begin + down; r < end; r += kThreads / lanes)
        sum = fma(static_cast<A>(vector.values[r]), static_cast<A>(dy.row(r)[vector.begin + col]), sum);
    }
    __syncthreads();  // readers of the stretch before are done
    partial[threadIdx.x] = sum;
    for (int half = kThreads / 2; half >= lanes; half /= 2) {
      __syncthreads();
      if (static_cast<int>(threadIdx.x) < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    }
    if (down > 0 || col >= vector.width) continue;
    if (gridDim.y == 1) {
      vector.to[col] = static_cast<X>(partial[lane]);
    } else {
      sums[blockIdx.y * vectors.total + vectors.place[blockIdx.x] + col] = partial[lane];
    }
  }
}

// A block a vector.
template <class X>
__global__ void __launch_bounds__(kThreads)
    add_chunks(const __grid_constant__ Vectors<X> vectors, int64_t chunks, const acc_t<X>* sums) {
  const VectorGradient<X>& vector = vectors.at[blockIdx.x];
  for (int64_t col = threadIdx.x; col < vector.width; col += kThreads) {
    const acc_t<X>* const from = sums + vectors.place[blockIdx.x] + col;
    acc_t<X> sum = 0;
#pragma unroll 16
    for (int64_t c = 0; c < chunks; ++c) sum += from[c * vectors.total];
    vector.to[col] = static_cast<X>(sum);
  }
}

}  // namespace

template <class X, class Y>
void embedding_columns(Cuda device, const std::vector<ColumnView>& columns, Mat<Y> y) {
  for (size_t first = 0; first < columns.size(); first += kBatch) {
    Batch batch{};
    int64_t blocks = 0;
    for (size_t i = first; i < std::min(columns.size(), first + kBatch); ++i) {
      const ColumnView& view = columns[i];
      const bool vectors = in_pieces<X>(view, y);
      const rows::Plan plan(y.count(), cuda::blocks(view.width, vectors ? rows::kPiece<X, Y> : 1));
      blocks += plan.grid;
      batch.at[batch.count++] = {view, blocks, plan.lanes, vectors};
    }
    cuda::launch(device, write_columns<X, Y>, blocks, kThreads, 0, batch, y, cuda::IdCheck());
  }
}

template <class X, class Y>
void vector_gradients(Cuda device, const std::vector<VectorGradient<X>>& columns, Mat<const Y> dy) {
  const int64_t chunk = std::max(kLeastChunk, cuda::blocks(dy.count(), kMostChunks));
  const int64_t chunks = std::max<int64_t>(cuda::blocks(dy.count(), chunk), 1);
  for (size_t first = 0; first < columns.size(); first += kBatch) {
    Vectors<X> vectors{};
    const auto count = static_cast<unsigned>(std::min<size_t>(columns.size() - first, kBatch));
    for (unsigned i = 0; i < count; ++i) {
      vectors.at[i] = columns[first + i];
      vectors.place[i] = vectors.total;
      vectors.total += vectors.at[i].width;
    }
    const cuda::Scratch<acc_t<X>> sums(chunks > 1 ? chunks * vectors.total : 0);
    cuda::launch(device, sum_chunks<X, Y>, dim3(count, static_cast<unsigned>(chunks)), dim3(kThreads), 0,
                 vectors, dy, chunk, sums.data());
    if (chunks > 1)
      cuda::launch(device, add_chunks<X>, dim3(count), dim3(kThreads), 0, vectors, chunks, sums.data());
  }
}

#define MR_INSTANTIATE(X, Y)                                                        \
  template void embedding_columns<X>(Cuda, const std::vector<ColumnView>&, Mat<Y>); \
  template void vector_gradients(Cuda, const std::vector<VectorGradient<X>>&, Mat<const Y>)
MR_INSTANTIATE(float, float);
MR_INSTANTIATE(float, bfloat16);
MR_INSTANTIATE(bfloat16, bfloat16);
MR_INSTANTIATE(double, double);
#undef MR_INSTANTIATE

}  // namespace mixrec::kernel
