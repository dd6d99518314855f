// One feature of an export, and what it makes of values; inside of FeatureEncoder.
#pragma once

#include "mixrec/data/dictionary.h"
#include "mixrec/data/feature_encoder.h"
#include "mixrec/data/feature_export.h"

#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

// Cells of one feature, row by row.
struct Cells {
  explicit Cells(FeatureKind kind) : kind(kind) {}

  void end_row() { offsets.push_back(static_cast<int64_t>(ids.size())); }  // of lists
  FeatureColumn column() const;

  FeatureKind kind;
  std::vector<int64_t> ids, offsets{0};
  std::vector<float> values;
  int64_t unknown = 0;  // values that were given and have no row of their own
};

// Every put appends one row, or throws a sentence about the value.
struct EncodedFeature : ExportedFeature {
  const Dictionary* texts = nullptr;  // of its vocabulary: row - 1 is a text's number
  PackedFeature stored;
  int64_t known = INT64_MAX;  // rows of its table that the model knows; higher ones are unknown to it

  const FeatureSpec& spec() const { return rule.spec; }
  bool is_number() const { return rule.encoding >= Encoding::quantiles; }
  bool is_list() const { return spec().kind == FeatureKind::list; }

  void put(const Value& value, Cells& to) const;
  void put_missing(Cells& to) const;
  // What is stored of a user or item; `number` kNone: it is in no table.
  void put_entity(const std::string& id, uint32_t number, Cells& to) const;

 private:
  int64_t row_of(std::string_view text) const;
  int64_t known_row(int64_t row) const { return row < known ? row : kUnknownRow; }
  void put_number(double value, Cells& to) const;
  void put_cell(std::string_view text, Cells& to) const;
  static void put_row(int64_t row, Cells& to);
  void put_whole(double value, Cells& to) const;
};

// A value that stands for a number; throws on a list and on a text that is none.
double number_of(const Value& value);

// The value as messages show it.
std::string shown(const Value& value);

}  // namespace mixrec
