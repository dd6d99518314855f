// A streaming reader of delimited text, compressed or not: one row in memory, whatever the size of the file.
#pragma once

#include "mixrec/data/input_file.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mixrec {

struct CsvFormat {
  std::string separator = ",";       // any string: "," "\t" "::" "|" " "
  std::vector<std::string> columns;  // names of the columns; empty: the first row of the file holds them
  bool header = true;                // the first row holds names; with `columns` given it is skipped
  // Cells may be quoted: "a, b" with "" for a quote inside, line breaks allowed.
  bool quotes = true;
};

class CsvReader {
 public:
  // Opens the file and reads its header.  Throws when it is missing, empty, has a column name twice, or is no delimited
  // text at all (UTF-16, an archive, JSON), saying what it is.
  CsvReader(std::string path, CsvFormat format);
  ~CsvReader();
  CsvReader(const CsvReader&) = delete;
  CsvReader& operator=(const CsvReader&) = delete;

  // Reads the next row; false at the end of the file.  Empty lines are skipped; a row with another number of
  // cells than the header is an error, and so is a cell that is not UTF-8 in a column that somebody asked for.
  bool next();

  const std::vector<std::string>& columns() const { return columns_; }

  // Index of a column; throws with the nearest name and how the first line was read when there is none.  `asked` is
  // the key of the schema that names it.
  size_t column(std::string_view name, std::string_view asked = "") const;

  // A cell of the current row, valid until the next call of next().
  std::string_view cell(size_t column) const { return cells_[column]; }
  const std::vector<std::string_view>& cells() const { return cells_; }

  // A cell as a finite number; throws naming the place when it is not one.
  double number(size_t column) const;

  // Line on which the current row starts, from 1, as an editor shows it.
  int64_t line() const { return row_line_; }

  // "ratings.csv, line 7, column 'rating'": how messages begin.
  std::string place(size_t column) const;
  std::string place() const;

  // Bytes read so far and in all, for progress.
  int64_t bytes_read() const {
    return file_.bytes_read() - static_cast<int64_t>(plain() ? end_ - begin_ : 0);
  }
  int64_t bytes() const { return file_.bytes(); }

 private:
  bool plain() const { return file_.packed() == Packed::plain; }
  void look_at_beginning();
  void check_header() const;
  void check_utf8() const;
  std::string first_line() const;
  std::string other_separator(std::string_view line) const;
  bool read_checked();
  void check_rest() const;
  bool read_row();
  bool fill();
  bool find_line(size_t& end);
  void split(std::string_view line);
  void split_quoted(std::string_view line);

  std::string path_, name_;
  CsvFormat format_;
  mutable InputFile file_;
  int64_t line_ = 0, row_line_ = 0;
  std::string header_;  // the first line, cut
  size_t header_cells_ = 0;
  std::string_view row_;
  bool ascii_ = true;                       // the current row
  mutable std::vector<uint8_t> asked_for_;  // by column
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;  // unread part of buffer_
  bool at_end_ = false;
  std::vector<std::string> columns_;
  std::vector<std::string_view> cells_;
  std::vector<std::string> unquoted_;  // text of cells with "" inside
};

// A finite number that takes the whole of `text` (spaces around it allowed); false otherwise.
bool parse_number(std::string_view text, double& value);

}  // namespace mixrec
