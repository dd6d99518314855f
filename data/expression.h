// Small expressions over the columns of a row: label rules, masks, weights, filters.
//
//   rating >= 4          is_click == 1 && play_time_ms > 0.9 * duration_ms        country != 'DE'
//
// In order of binding: `!` and unary `-`, `* /`, `+ -`, `< <= > >= == !=`, `&&`, `||`; parentheses; numbers;
// text in 'quotes' (== and != only, compared with the cell as written); columns by name, in `backticks` where
// the name has other characters than letters, digits, _ and dots.  Comparisons give 1 or 0; anything but 0 is true.
// Whole numbers of any length compare exactly with each other, as ids must; beyond 2^53 nothing is computed with them.
#pragma once

#include "mixrec/data/csv_reader.h"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

class Expression {
 public:
  // Binds names to the reader's columns.  Throws on a syntax error, with its position, and on an unknown
  // column.  `asked` is the key of the schema that the expression is from.
  Expression(std::string text, const CsvReader& reader, std::string_view asked = "");
  Expression(Expression&&) noexcept;
  Expression& operator=(Expression&&) noexcept;
  ~Expression();

  // Value on the reader's current row; throws, naming file, line, column and cell, where a number is needed
  // and the cell is none.
  double operator()(const CsvReader& reader) const;

  // The same; nothing when the value depends on a number whose cell is empty.
  std::optional<double> value_or_missing(const CsvReader& reader) const;

  const std::string& text() const { return text_; }

  struct Node;

 private:
  std::string text_;
  std::unique_ptr<Node> root_;
};

// Names of the columns an expression reads, in order of appearance, without binding them.
std::vector<std::string> expression_columns(const std::string& text);

}  // namespace mixrec
