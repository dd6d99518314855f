#include "mixrec/data/encoded_feature.h"

#include "mixrec/core/error.h"
#include "mixrec/data/csv_reader.h"
#include "mixrec/data/encodings.h"

#include <cmath>
#include <limits>

namespace mixrec {

FeatureColumn Cells::column() const {
  if (kind == FeatureKind::numeric) return {.values = Tensor::from(values)};
  if (kind == FeatureKind::categorical) return {.ids = Tensor::from(ids)};
  return {.ids = Tensor::from(ids), .offsets = Tensor::from(offsets)};
}

std::string shown(const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return concat_message("'", *text, "'");
  if (const auto* whole = std::get_if<int64_t>(&value)) return std::to_string(*whole);
  if (const auto* number = std::get_if<double>(&value)) return concat_message(*number);
  std::string all = "[";
  for (const std::string& one : std::get<std::vector<std::string>>(value))
    all.append(all.size() > 1 ? ", '" : "'").append(one).append("'");
  return all.append("]");
}

double number_of(const Value& value) {
  MR_CHECK(!std::holds_alternative<std::vector<std::string>>(value), shown(value), " is a list");
  double number = 0;
  if (const auto* text = std::get_if<std::string>(&value)) {
    MR_CHECK(parse_number(*text, number), shown(value), " is not a number");
  } else {
    const auto* whole = std::get_if<int64_t>(&value);
    number = whole ? static_cast<double>(*whole) : std::get<double>(value);
  }
  MR_CHECK(std::isfinite(number), number, " is not a finite number");
  return number;
}

int64_t EncodedFeature::row_of(std::string_view text) const {
  if (rule.encoding == Encoding::hash) return hash_row(text, rule.buckets);
  const uint32_t number = texts->find(text);
  return number == Dictionary::kNone ? kUnknownRow : known_row(int64_t{number} + 1);
}

void EncodedFeature::put_number(double value, Cells& to) const {
  if (spec().kind == FeatureKind::numeric) {
    const float number = standardised(value, rule.log1p, numbers[0], numbers[1]);
    MR_CHECK(std::isnan(value) || (fits_f32(value) && std::isfinite(number)), value,
             " is beyond the numbers that the model computes with");
    to.values.push_back(number);
  } else {
    to.ids.push_back(bucket_row(value, numbers));
  }
}

void EncodedFeature::put_row(int64_t row, Cells& to) {
  to.ids.push_back(row);
  to.unknown += row == kUnknownRow;
}

// A cell of a file that is not empty.
void EncodedFeature::put_cell(std::string_view text, Cells& to) const {
  if (is_number()) return put_number(number_of(std::string(text)), to);
  if (!is_list()) return put_row(row_of(text), to);
  for_each_element(text, rule.list_separator, [&](std::string_view element) {
    if (!element.empty()) put_row(row_of(element), to);
  });
  to.end_row();
}

void EncodedFeature::put_missing(Cells& to) const {
  if (rule.rate) return to.values.push_back(standardised(numbers[2], false, numbers[0], numbers[1]));
  if (!rule.part.empty()) return to.ids.push_back(kUnknownRow);
  if (rule.missing && !rule.missing->empty()) {
    const int64_t given = to.unknown;
    put_cell(*rule.missing, to);
    to.unknown = given;
    return;
  }
  if (is_number()) return put_number(std::numeric_limits<double>::quiet_NaN(), to);
  if (is_list()) return to.end_row();
  to.ids.push_back(row_of(""));
}

// Rows 1 + hour, 1 + weekday, 1 + count.
void EncodedFeature::put_whole(double value, Cells& to) const {
  const int64_t largest = rule.matches ? std::numeric_limits<int32_t>::max() : rule.part == "hour" ? 23 : 6;
  MR_CHECK(value == std::floor(value) && value >= 0 && value <= static_cast<double>(largest), value,
           " is not a whole number from 0 to ", largest);
  const auto whole = static_cast<int64_t>(value);
  to.ids.push_back(1 + (rule.matches ? std::min(whole, rule.matches->cap) : whole));
}

void EncodedFeature::put(const Value& value, Cells& to) const {
  const auto* text = std::get_if<std::string>(&value);
  if (text && rule.is_missing(*text)) return put_missing(to);
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
    MR_CHECK(is_list(), shown(value), " is a list, the feature has one value");
    for (const std::string& element : *list)
      if (!element.empty()) put_row(row_of(element), to);
    return to.end_row();
  }
  if (!rule.part.empty() || rule.matches) return put_whole(number_of(value), to);
  if (is_number()) return put_number(number_of(value), to);
  MR_CHECK(!std::holds_alternative<double>(value), shown(value), " is a number, the feature is a text");
  text ? put_cell(*text, to) : put_cell(std::to_string(std::get<int64_t>(value)), to);
}

void EncodedFeature::put_entity(const std::string& id, uint32_t number, Cells& to) const {
  if (of_entity && !id.empty()) return put_cell(id, to);
  if (of_entity || number == Dictionary::kNone) {
    to.unknown += !id.empty();
    return put_missing(to);
  }
  if (spec().kind == FeatureKind::numeric) return to.values.push_back(stored.values.at(number));
  if (!is_list()) return put_row(known_row(stored.ids.at(number)), to);
  const uint64_t list = stored.ids.at(number);
  for (uint64_t e = stored.list_offsets.at(list), end = stored.list_offsets.at(list + 1); e < end; ++e)
    put_row(known_row(stored.list_elements.at(e)), to);
  to.end_row();
}

}  // namespace mixrec
