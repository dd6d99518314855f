#include "mixrec/optim/row_gradients.h"

#include "mixrec/autograd/meta.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/core/simd.h"

#include <algorithm>

namespace mixrec::optim {

namespace {

constexpr int64_t kPiece = 256;  // look-ups

const std::vector<autograd::Lookup>& lookups_of(const Tensor& table) {
  static const std::vector<autograd::Lookup> none;
  return table.meta() ? table.meta()->lookups : none;
}

void check_lookup(const Trained& table, const autograd::Lookup& lookup) {
  MR_CHECK(lookup.ids.dtype() == i64 && lookup.ids.is_contiguous(), "the ids of a look-up in ", table.name,
           " must be dense i64");
  const bool narrow = lookup.dy.dtype() == bf16 && table.value.dtype() == f32;
  MR_CHECK((lookup.dy.dtype() == table.value.dtype() || narrow) && lookup.dy.ndim() == 2 &&
               lookup.dy.dim(1) == table.value.dim(1),
           "a look-up in ", table.name, " ", table.value.dtype(), table.value.shape(), " left a gradient ",
           lookup.dy.dtype(), lookup.dy.shape());
  MR_CHECK(lookup.dy.dim(1) <= 1 || lookup.dy.strides()[1] == 1, "the gradient of a look-up in ", table.name,
           " has columns apart from each other: its rows must be dense");
  MR_CHECK(!lookup.weights.defined() || lookup.weights.dtype() == table.value.dtype() ||
               lookup.weights.dtype() == lookup.dy.dtype(),
           "the weights of a look-up in ", table.name, " are ", lookup.weights.dtype());
  for (const Tensor& x : {lookup.ids, lookup.dy, lookup.rows, lookup.weights}) {
    MR_CHECK(!x.defined() || x.device() == table.value.device(), "a look-up in ", table.name, " on ",
             table.value.device(), " left tensors on ", x.device());
  }
}

template <class T>
void add_scaled(int64_t n, T weight, const T* x, T* sum) {
  simd::transform(
      n, sum, [weight](auto a, auto s) { return simd::fma(decltype(a)(weight), a, s); }, x, sum);
}

int64_t count_lookups(const std::vector<Trained>& tables) {
  int64_t count = 0;
  for (const Trained& table : tables) {
    MR_CHECK(!table.value.meta() || !table.value.meta()->grad.defined(), "the table ", table.name,
             " has a dense gradient: something other than a look-up used it; make it a dense parameter");
    for (const auto& lookup : lookups_of(table.value)) {
      check_lookup(table, lookup);
      count += lookup.ids.numel();
    }
  }
  return count;
}

}  // namespace

std::vector<LookupView> recorded_lookups(const std::vector<Trained>& tables, int64_t* count) {
  *count = count_lookups(tables);
  std::vector<LookupView> views;
  int64_t at = 0, base = 0;
  for (const Trained& table : tables) {
    for (const autograd::Lookup& lookup : lookups_of(table.value)) {
      if (lookup.ids.numel() == 0) continue;
      const int64_t element = static_cast<int64_t>(size_of(lookup.dy.dtype()));
      LookupView view{};
      view.first = at;
      view.count = lookup.ids.numel();
      view.base = base;
      view.table_rows = table.value.dim(0);
      view.ids = lookup.ids.data<const int64_t>();
      if (lookup.rows.defined()) view.places = lookup.rows.data<const int64_t>();
      if (lookup.weights.defined()) {
        view.weights = lookup.weights.raw_data();
        view.narrow_weights = lookup.weights.dtype() != table.value.dtype();
      }
      view.dy = static_cast<const std::byte*>(lookup.dy.raw_data());
      view.stride = lookup.dy.strides()[0] * element;
      view.dy_rows = lookup.dy.dim(0);
      view.narrow = lookup.dy.dtype() != table.value.dtype();
      views.push_back(view);
      at += view.count;
    }
    base += table.value.dim(0);
  }
  return views;
}

void RowGradients::collect(const std::vector<Trained>& tables) {
  bases_.assign(1, 0);
  widths_.clear();
  for (const Trained& table : tables) {
    bases_.push_back(bases_.back() + static_cast<uint64_t>(table.value.dim(0)));
    widths_.push_back(table.value.dim(1));
  }
  const int64_t count = count_lookups(tables);
  items_.resize(static_cast<size_t>(count));
  recorded_.resize(static_cast<size_t>(count));
  sources_.resize(static_cast<size_t>(count));
  rows_.clear();
  widened_.clear();
  if (count == 0) return;
  dispatch_real(tables[0].value.dtype(), [&]<class T>() {
    int64_t at = 0;
    for (size_t t = 0; t < tables.size(); ++t) append<T>(tables[t], bases_[t], at);
    radix_sort(items_, scratch_, bases_.back());
    parallel_for(count, 8, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        sources_[i] = recorded_[static_cast<size_t>(items_[i].index)];
      }
    });
    find_rows(tables);
    sum_long_rows<T>();
  });
}

// The numbers of a bf16 gradient in the table's dtype, kept for the step.
Tensor RowGradients::widened(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  widened_.push_back(empty(x.shape(), dtype));
  copy_into(widened_.back(), x);
  return widened_.back();
}

// Adds the look-ups of one table to items_ and recorded_ from place `at` on.
template <class T>
void RowGradients::append(const Trained& table, uint64_t base, int64_t& at) {
  const int64_t table_rows = table.value.dim(0);
  for (const autograd::Lookup& lookup : lookups_of(table.value)) {
    const int64_t n = lookup.ids.numel();
    const int64_t* const ids = lookup.ids.data<const int64_t>();
    const Mat<const T> dy = widened(lookup.dy, table.value.dtype()).template mat<const T>();
    const int64_t* const places = lookup.rows.defined() ? lookup.rows.data<const int64_t>() : nullptr;
    const T* const weights = lookup.weights.defined()
                                 ? widened(lookup.weights, table.value.dtype()).template data<const T>()
                                 : nullptr;
    parallel_for(n, 8, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        MR_CHECK(ids[j] >= 0 && ids[j] < table_rows, "the id ", ids[j], " is outside the ", table_rows,
                 " rows of ", table.name);
        const auto to = static_cast<size_t>(at + j);
        items_[to] = {base + static_cast<uint64_t>(ids[j]), at + j};
        recorded_[to] = {dy.row(places ? places[j] : j), weights ? static_cast<double>(weights[j]) : 1.0};
      }
    });
    at += n;
  }
}

void RowGradients::find_rows(const std::vector<Trained>& tables) {
  const auto count = static_cast<int64_t>(items_.size());
  pieces_.clear();
  int64_t sums = 0;
  int32_t table = 0;
  for (int64_t first = 0; first < count;) {
    const uint64_t key = items_[static_cast<size_t>(first)].key;
    int64_t last = first + 1;
    while (last < count && items_[static_cast<size_t>(last)].key == key) ++last;
    while (key >= bases_[static_cast<size_t>(table) + 1]) ++table;
    Row row{static_cast<int64_t>(key - bases_[static_cast<size_t>(table)]), first, last, -1, table};
    if (last - first > kPiece) {
      row.sum = sums;
      for (int64_t at = first; at < last; at += kPiece) {
        pieces_.push_back({rows_.size(), at, std::min(last, at + kPiece), sums});
        sums += widths_[static_cast<size_t>(table)];
      }
    }
    rows_.push_back(row);
    first = last;
  }
  if (sums > 0 && (!sums_.defined() || sums_.numel() < sums)) sums_ = empty({sums}, tables[0].value.dtype());
}

template <class T>
void RowGradients::sum_long_rows() {
  if (pieces_.empty()) return;
  T* const sums = sums_.data<T>();
  const auto width_of = [&](const Piece& piece) {
    return widths_[static_cast<size_t>(rows_[piece.row].table)];
  };
  const auto count = static_cast<int64_t>(pieces_.size());
  parallel_for(count, kPiece * width_of(pieces_[0]), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces_[static_cast<size_t>(i)];
      sum(piece.first, piece.last, width_of(piece), sums + piece.sum);
    }
  });
  for (const Piece& piece : pieces_) {
    T* const total = sums + rows_[piece.row].sum;
    if (sums + piece.sum != total) add_scaled(width_of(piece), T(1), sums + piece.sum, total);
  }
}

template <class T>
void RowGradients::sum(int64_t first, int64_t last, int64_t width, T* to) const {
  std::fill_n(to, width, T(0));
  for (int64_t i = first; i < last; ++i) {
    const Source& source = sources_[static_cast<size_t>(i)];
    add_scaled(width, static_cast<T>(source.weight), static_cast<const T*>(source.row), to);
  }
}

template <class T>
const T* RowGradients::gradient(const Row& row, T* scratch) const {
  if (row.sum >= 0) return sums_.data<const T>() + row.sum;
  const Source& source = sources_[static_cast<size_t>(row.first)];
  if (row.last - row.first == 1 && source.weight == 1) return static_cast<const T*>(source.row);
  sum(row.first, row.last, widths_[static_cast<size_t>(row.table)], scratch);
  return scratch;
}

template const float* RowGradients::gradient(const Row&, float*) const;
template const double* RowGradients::gradient(const Row&, double*) const;

void RowGradients::prefetch(const Row& row) const {
  if (row.sum >= 0) return;
  const auto* line = static_cast<const char*>(sources_[static_cast<size_t>(row.first)].row);
  for (int64_t i = 0; i < 4; ++i) __builtin_prefetch(line + 64 * i);
}

}  // namespace mixrec::optim
