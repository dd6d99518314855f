// The pending look-ups of all tables, brought together by row on the device.
//
//   list_lookups   a thread a look-up: its key (row among the rows of all tables), and where its gradient lies
//   radix sort     of (key, place) by CUB, stable: within a row the look-ups stay in the order of recording
//   select         the places where a key differs from the one before: the rows
//   list_rows      a thread a look-up: brings its source to its sorted place; a thread a row: its table and
//                  length.  A row of more than 64 look-ups is cut into pieces of 64.
//   sum_pieces     a group of lanes a piece
//   add_pieces     a block a long row: adds its pieces up, eight sums side by side, then these; the row then has
//                  that sum as its only source, and a row that many look-ups name costs the others nothing
//   square_rows    a group of lanes a row, four rows each: the sum of squares and whether all is finite
//
// Which place a piece gets is left to an atomic counter; no number depends on it.  Bytes: 524288 look-ups of 64
// floats are 134 MB of gradients, read once here and once by the update; keys, places and sources move 12 bytes
// a look-up in each of the sort's passes (eight bits each of the number of rows) and about 80 around it.
#include "mixrec/optim/device_rows.cuh"

#include <algorithm>
#include <bit>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_select.cuh>
#include <thrust/iterator/counting_iterator.h>

namespace mixrec::optim::kernel {

namespace {

constexpr int kThreads = 256;
constexpr int kPiece = 64;       // look-ups
constexpr int kRowsOfGroup = 4;  // in square_rows
constexpr int kBatch = 44;       // runs of look-ups a launch: they travel as its arguments
constexpr int kSlices = kThreads / cuda::kWarp;

struct Batch {
  LookupView at[kBatch];
  int count;
};
static_assert(sizeof(Batch) < 4000);  // of 4 KiB of arguments

struct Piece {
  int32_t first, count, table;
};

struct LongRow {
  int64_t row;
  int32_t first_piece, pieces;
};

template <class T>
__device__ T weight_of(const LookupView& lookups, int64_t j) {
  if (!lookups.weights) return T(1);
  if (lookups.narrow_weights)
    return static_cast<T>(static_cast<float>(static_cast<const bfloat16*>(lookups.weights)[j]));
  return static_cast<const T*>(lookups.weights)[j];
}

// Look-ups [begin, end), which are those of the batch.  A lost one gets the key `lost`, past all rows.
template <class T>
__global__ void __launch_bounds__(kThreads)
    list_lookups(const __grid_constant__ Batch batch, int64_t begin, int64_t end, uint64_t lost,
                 uint64_t* keys, uint32_t* places, Source<T>* sources, RowCounts* counts) {
  const int64_t i = begin + static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i == 0) *counts = RowCounts{};
  if (i >= end) return;
  int run = 0;
  for (int behind = batch.count; behind - run > 1;) {
    const int middle = (run + behind) / 2;
    (batch.at[middle].first <= i ? run : behind) = middle;
  }
  const LookupView& lookups = batch.at[run];
  const int64_t j = i - lookups.first, id = lookups.ids[j];
  const int64_t place = lookups.places ? lookups.places[j] : j;
  const bool known = id >= 0 && id < lookups.table_rows && place >= 0 && place < lookups.dy_rows;
  keys[i] = known ? static_cast<uint64_t>(lookups.base + id) : lost;
  places[i] = static_cast<uint32_t>(i);
  sources[i] = {lookups.dy + (known ? place : 0) * lookups.stride, weight_of<T>(lookups, j), lookups.narrow};
}

struct StartsRun {
  const uint64_t* keys;
  __device__ bool operator()(int32_t i) const { return i == 0 || keys[i] != keys[i - 1]; }
};

// The last table whose rows begin at or before `key`.
__device__ int32_t table_of(const DeviceTable* tables, int32_t count, int64_t key) {
  int32_t low = 0, high = count - 1;
  while (low < high) {
    const int32_t middle = (low + high + 1) / 2;
    if (tables[middle].base <= key) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    list_rows(int64_t n, uint64_t lost, DeviceTables tables, const uint64_t* keys, const uint32_t* places,
              const int32_t* firsts, const Source<T>* recorded, Source<T>* sources, Row* rows, Piece* pieces,
              LongRow* long_rows, RowCounts* counts, DeviceStep* step) {
  const int64_t r = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (r < n) sources[r] = recorded[places[r]];
  const int64_t runs = counts->runs;
  if (r >= runs) return;
  const int32_t first = firsts[r];
  const int32_t count = (r + 1 < runs ? firsts[r + 1] : static_cast<int32_t>(n)) - first;
  const uint64_t key = keys[first];
  if (r + 1 == runs) counts->rows = key == lost ? r : runs;
  if (key == lost) {
    step->lost_lookups += count;
    return;
  }
  const int32_t table = table_of(tables.tables, tables.count, static_cast<int64_t>(key));
  rows[r] = {static_cast<int64_t>(key) - tables.tables[table].base, first, count, table};
  if (count <= kPiece) return;
  const int32_t parts = (count + kPiece - 1) / kPiece;
  const int32_t start = atomicAdd(&counts->pieces, parts);
  long_rows[atomicAdd(&counts->long_rows, 1)] = {r, start, parts};
  for (int32_t p = 0; p < parts; ++p)
    pieces[start + p] = {first + p * kPiece, min(kPiece, count - p * kPiece), table};
}

template <class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    sum_pieces(const Piece* pieces, const RowCounts* counts, const Source<T>* sources, DeviceTables tables,
               int lanes, T* sums) {
  const Group group(lanes);
  if (group.index >= counts->pieces) return;
  const Piece piece = pieces[group.index];
  const int64_t width = tables.tables[piece.table].width;
  T* const sum = sums + group.index * tables.widest;
  for (int64_t col = group.lane * kPack; col < width; col += lanes * kPack)
    store_pack<kPack>(sum + col, add_sources<kPack>(sources + piece.first, piece.count, col));
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    add_pieces(const LongRow* long_rows, const RowCounts* counts, DeviceTables tables, Row* rows,
               Source<T>* sources, T* sums) {
  __shared__ T slices[kSlices][cuda::kWarp];
  const int lane = threadIdx.x % cuda::kWarp, slice = threadIdx.x / cuda::kWarp;
  for (int64_t l = blockIdx.x; l < counts->long_rows; l += gridDim.x) {
    const LongRow row = long_rows[l];
    const int64_t width = tables.tables[rows[row.row].table].width;
    T* const first = sums + row.first_piece * tables.widest;
    for (int64_t begin = 0; begin < width; begin += cuda::kWarp) {
      const int64_t col = begin + lane;
      T sum = 0;
      if (col < width) {
#pragma unroll 8
        for (int32_t p = slice; p < row.pieces; p += kSlices) sum += first[p * tables.widest + col];
      }
      slices[slice][lane] = sum;
      __syncthreads();
      if (slice == 0 && col < width) {
        for (int other = 1; other < kSlices; ++other) sum += slices[other][lane];
        first[col] = sum;
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      rows[row.row].count = 1;
      sources[rows[row.row].first] = {first, T(1), 0};
    }
  }
}

template <class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    square_rows(const Row* rows, const RowCounts* counts, const Source<T>* sources, DeviceTables tables,
                int lanes, double* partials, DeviceStep* step) {
  const Group group(lanes);
  const int64_t groups = kThreads / lanes, first = blockIdx.x * groups * kRowsOfGroup;
  const int64_t own = group.index % groups, count = counts->rows;
  double square = 0;
  for (int64_t i = 0; i < kRowsOfGroup; ++i) {
    const int64_t r = first + i * groups + own;
    if (r >= count) break;
    const Row row = rows[r];
    const int64_t width = tables.tables[row.table].width;
    double of_row = 0;
    for (int64_t col = group.lane * kPack; col < width; col += lanes * kPack) {
      const Pack<T, kPack> g = add_sources<kPack>(sources + row.first, row.count, col);
#pragma unroll
      for (int k = 0; k < kPack; ++k) of_row += static_cast<double>(g.at[k]) * static_cast<double>(g.at[k]);
    }
    if (!isfinite(of_row)) atomicMin(&step->suspect, tables.first_parameter + row.table);
    square += of_row;
  }
  square = cuda::block_sum<kThreads>(square);
  if (threadIdx.x == 0) partials[blockIdx.x] = square;
}

// CUB's calls are made twice: for the memory that they need, and with it.
template <class Call>
void with_memory(Cuda device, Call&& call) {
  size_t bytes = 0;
  cuda::check(call(nullptr, bytes), "asking what a sort needs");
  const cuda::Scratch<std::byte> memory(static_cast<int64_t>(bytes));
  cuda::check(call(memory.data(), bytes), "sorting look-ups");
  cuda::check_launch(device);
}

// Whether all gradients can be read four at a time.
bool vectorisable(const std::vector<LookupView>& lookups) {
  return std::all_of(lookups.begin(), lookups.end(), [](const LookupView& l) {
    const int64_t four = l.narrow ? 8 : 16;
    return l.stride % four == 0 && reinterpret_cast<uintptr_t>(l.dy) % four == 0;
  });
}

// Lanes for rows of `packs` packs.
int lanes_for(int64_t packs) {
  return static_cast<int>(std::bit_ceil(static_cast<uint64_t>(std::clamp<int64_t>(packs, 1, cuda::kWarp))));
}

template <class T>
void list_all(Cuda device, const std::vector<LookupView>& lookups, uint64_t lost, uint64_t* keys,
              uint32_t* places, Source<T>* sources, RowCounts* counts) {
  for (size_t first = 0; first < lookups.size(); first += kBatch) {
    Batch batch{};
    for (size_t i = first; i < std::min(lookups.size(), first + kBatch); ++i)
      batch.at[batch.count++] = lookups[i];
    const LookupView& last = batch.at[batch.count - 1];
    const int64_t begin = batch.at[0].first, end = last.first + last.count;
    cuda::launch(device, list_lookups<T>, cuda::blocks(end - begin, kThreads), kThreads, 0, batch, begin, end,
                 lost, keys, places, sources, counts);
  }
}

// The sums that do without the table's numbers: of the pieces of long rows, and of squares.
template <class T, int kPack>
void sum_up(Cuda device, const DeviceRows& rows, const Piece* pieces, int64_t most_pieces,
            const LongRow* long_rows, DeviceStep* step) {
  auto* const sources = reinterpret_cast<Source<T>*>(rows.sources.data());
  auto* const sums = reinterpret_cast<T*>(rows.sums.data());
  RowCounts* const counts = rows.counts;
  if (rows.count > kPiece) {
    cuda::launch(device, sum_pieces<T, kPack>, cuda::blocks(most_pieces, kThreads / rows.lanes), kThreads, 0,
                 pieces, counts, sources, rows.tables, rows.lanes, sums);
    const int64_t blocks = std::min<int64_t>(rows.count / kPiece, 4 * cuda::multiprocessors());
    cuda::launch(device, add_pieces<T>, blocks, kThreads, 0, long_rows, counts, rows.tables, rows.rows,
                 sources, sums);
  }
  cuda::launch(device, square_rows<T, kPack>, rows.partial_count, kThreads, 0, rows.rows, counts, sources,
               rows.tables, rows.lanes, rows.partials, step);
}

}  // namespace

template <class T>
std::shared_ptr<DeviceRows> collect_rows(Cuda device, const DeviceTables& tables,
                                         const std::vector<LookupView>& lookups, int64_t count,
                                         DeviceStep* step) {
  MR_CHECK(count <= INT32_MAX, count, " look-ups in one step, at most ", INT32_MAX);
  const bool vectors = std::is_same_v<T, float> && tables.vectorisable && vectorisable(lookups);
  const int lanes = lanes_for((tables.widest + (vectors ? 3 : 0)) / (vectors ? 4 : 1));
  const int64_t most_pieces = count / (kPiece / 2) + 1;
  const auto rows = std::make_shared<DeviceRows>(
      tables, count, sizeof(Source<T>),
      count > kPiece ? most_pieces * tables.widest * static_cast<int64_t>(sizeof(T)) : 0,
      cuda::blocks(count, kThreads / lanes * kRowsOfGroup));
  rows->lanes = lanes;
  rows->vectors = vectors;

  const auto lost = static_cast<uint64_t>(tables.rows);
  const cuda::Scratch<uint64_t> first_keys(count), second_keys(count);
  const cuda::Scratch<uint32_t> first_places(count), second_places(count);
  const cuda::Scratch<Source<T>> recorded(count);
  list_all<T>(device, lookups, lost, first_keys, first_places, recorded, rows->counts);

  const auto n = static_cast<int>(count);
  const cudaStream_t stream = cuda::stream_of(device);
  cub::DoubleBuffer<uint64_t> keys(first_keys, second_keys);
  cub::DoubleBuffer<uint32_t> places(first_places, second_places);
  with_memory(device, [&](void* memory, size_t& bytes) {
    return cub::DeviceRadixSort::SortPairs(memory, bytes, keys, places, n, 0, std::bit_width(lost), stream);
  });
  const cuda::Scratch<int32_t> firsts(count);
  with_memory(device, [&](void* memory, size_t& bytes) {
    return cub::DeviceSelect::If(memory, bytes, thrust::counting_iterator<int32_t>(0), firsts.data(),
                                 &rows->counts.data()->runs, n, StartsRun{keys.Current()}, stream);
  });

  const cuda::Scratch<Piece> pieces(most_pieces);
  const cuda::Scratch<LongRow> long_rows(count / kPiece + 1);
  cuda::launch(device, list_rows<T>, cuda::blocks(count, kThreads), kThreads, 0, count, lost, tables,
               keys.Current(), places.Current(), firsts.data(), recorded.data(),
               reinterpret_cast<Source<T>*>(rows->sources.data()), rows->rows, pieces.data(),
               long_rows.data(), rows->counts, step);
  if constexpr (std::is_same_v<T, float>) {
    if (vectors) {
      sum_up<float, 4>(device, *rows, pieces, most_pieces, long_rows, step);
      return rows;
    }
  }
  sum_up<T, 1>(device, *rows, pieces, most_pieces, long_rows, step);
  return rows;
}
template std::shared_ptr<DeviceRows> collect_rows<float>(Cuda, const DeviceTables&,
                                                         const std::vector<LookupView>&, int64_t,
                                                         DeviceStep*);
template std::shared_ptr<DeviceRows> collect_rows<double>(Cuda, const DeviceTables&,
                                                          const std::vector<LookupView>&, int64_t,
                                                          DeviceStep*);

}  // namespace mixrec::optim::kernel
