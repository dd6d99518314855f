// What the training rows say of items (features with "item_values"), kept with the encoders: an item that the run knows
// keeps its value in whatever data it is met again.
//
//   encoders/item_values.F.txt   of feature F, per item with a value two lines: the item, and its value: a number, the
//                                text of the cell, or the row of a hash
#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/csv_reader.h"
#include "mixrec/data/packing/packing.h"

#include <cmath>
#include <cstdio>

namespace mixrec::packing {

namespace {

bool keeps_rows(const Column& column) { return column.rule->encoding == Encoding::hash && !column.is_list(); }

const Dictionary& texts_of(const Column& column) { return column.is_list() ? *column.cells : *column.values; }

std::string shortest(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

// What is kept of an item; nothing where it has no value.
bool value_text(const Column& column, uint32_t item, uint32_t missing, std::string& text) {
  if (column.is_number()) {
    const double value = column.side_numbers[item];
    if (std::isnan(value)) return false;
    text = shortest(value);
    return true;
  }
  const uint32_t raw = column.side[item];
  if (raw == missing) return false;
  text = keeps_rows(column) ? std::to_string(raw) : std::string(texts_of(column).text(raw));
  return true;
}

void put_value(Column& column, uint32_t item, const std::string& text, const std::string& path) {
  double number = 0;
  if (column.is_number() || keeps_rows(column)) {
    const bool fits =
        parse_number(text, number) &&
        (column.is_number() || (number >= 0 && number <= static_cast<double>(column.rule->buckets) &&
                                number == std::floor(number)));
    if (!fits) MR_FAIL(path, " is damaged: '", text, "' is no value of '", column.rule->spec.name, "'");
  }
  if (column.is_number()) {
    column.side_numbers[item] = number;
  } else if (keeps_rows(column)) {
    column.side[item] = static_cast<uint32_t>(number);
  } else {
    column.side[item] = column.is_list() ? column.cells->add(text) : column.values->add(text);
  }
}

}  // namespace

void write_item_values(Packing& packing, size_t f) {
  Column& column = packing.columns[f];
  const uint32_t missing = column.is_number() ? 0 : column.missing_id();
  FileWriter out(Encoders::item_values_file(packing.out_path("encoders"), f));
  std::string text;
  for (uint32_t item = 0; item < packing.items.size(); ++item) {
    if (!value_text(column, item, missing, text)) continue;
    const std::string lines = escaped_line(packing.items.text(item)) + escaped_line(text);
    out.write(lines.data(), lines.size());
  }
  out.close(true);
}

void take_item_values(Packing& packing, size_t f) {
  Column& column = packing.columns[f];
  const size_t given = static_cast<size_t>(packing.given->find_feature(column.rule->spec.name) -
                                           packing.given->features.data());
  // Encoders of an earlier release keep none; then the data speaks for itself.
  if (packing.given->features[given].item_values.empty()) return;
  const std::string path = Encoders::item_values_file(packing.given->folder, given);
  if (column.is_number()) {
    column.side_numbers.assign(packing.items.size(), column.missing_number());
  } else {
    column.side.assign(packing.items.size(), column.missing_id());
  }
  std::string item;
  bool is_value = false;
  for_each_line(read_text_file(path), [&](const std::string& text) {
    if (is_value) {
      const uint32_t number = packing.items.find(item);
      if (number != Dictionary::kNone) put_value(column, number, text, path);
    } else {
      item = text;
    }
    is_value = !is_value;
  });
  if (is_value) MR_FAIL(path, " is damaged: its last item has no value");
}

}  // namespace mixrec::packing
