// The pending look-ups of all tables, brought together by row.
#pragma once

#include "mixrec/optim/device.h"
#include "mixrec/optim/radix_sort.h"
#include "mixrec/optim/state.h"

#include <cstdint>
#include <vector>

namespace mixrec::optim {

// The look-ups that wait at the tables, one after the other in the order of tables and recording, and their
// number.  Throws on gradients of another width or dtype (a bf16 one may meet an f32 table).
std::vector<LookupView> recorded_lookups(const std::vector<Trained>& tables, int64_t* count);

// The gradient of a row is the sum over its look-ups, however many of them and from however many backwards,
// in the order of recording.  A row with many is summed in pieces of a fixed number of look-ups, which are
// added up in order.  No number depends on the threads.  Buffers keep their size from step to step.
class RowGradients {
 public:
  struct Row {
    int64_t id;
    int64_t first, last;  // its look-ups
    int64_t sum;          // where its gradient was summed up ahead; -1: nowhere
    int32_t table;
  };

  // Sorts the look-ups and sums up the rows that have many.  They stay with the tables, which must keep them
  // as long as gradients are asked for.  Throws on an id outside its table and on gradients of another width
  // or dtype.
  void collect(const std::vector<Trained>& tables);

  // The rows that were looked up, ordered by table and id.
  const std::vector<Row>& rows() const { return rows_; }

  // The gradient of a row: in place where it lies somewhere, else written to `scratch` (one row wide).
  template <class T>
  const T* gradient(const Row& row, T* scratch) const;

  // Asks for the memory that gradient(row) will read.
  void prefetch(const Row& row) const;

 private:
  struct Source {
    const void* row;
    double weight;
  };
  struct Piece {
    size_t row;
    int64_t first, last;
    int64_t sum;
  };

  Tensor widened(const Tensor& x, DType dtype);
  template <class T>
  void append(const Trained& table, uint64_t base, int64_t& at);
  void find_rows(const std::vector<Trained>& tables);
  template <class T>
  void sum_long_rows();
  template <class T>
  void sum(int64_t first, int64_t last, int64_t width, T* to) const;

  std::vector<uint64_t> bases_;  // of each table among all rows; one more at the end
  std::vector<int64_t> widths_;
  std::vector<Source> recorded_;             // in the order of recording
  std::vector<KeyedIndex> items_, scratch_;  // by row; index = place in recorded_
  std::vector<Source> sources_;              // by row
  std::vector<Row> rows_;
  std::vector<Piece> pieces_;
  Tensor sums_;  // of the pieces
  std::vector<Tensor> widened_;
};

}  // namespace mixrec::optim
