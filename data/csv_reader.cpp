#include "mixrec/data/csv_reader.h"

#include "mixrec/core/error.h"
#include "mixrec/core/printable.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>
#include <utility>

namespace mixrec {

namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Long cells are cut in messages.
std::string shown(std::string_view text) {
  constexpr size_t kLongest = 60;
  return text.size() <= kLongest ? std::string(text) : std::string(text.substr(0, kLongest)) + "...";
}

// A separator as the schema writes it.
std::string visible(const std::string& separator) { return separator == "\t" ? "\\t" : separator; }

// Eight bytes at a time: nearly every row is.
bool is_ascii(std::string_view text) {
  uint64_t bits = 0, word = 0;
  for (; text.size() >= sizeof word; text.remove_prefix(sizeof word)) {
    std::memcpy(&word, text.data(), sizeof word);
    bits |= word;
  }
  for (const char c : text) bits |= static_cast<unsigned char>(c);
  return (bits & 0x8080808080808080) == 0;
}

}  // namespace

namespace {

// Of a number that f64 cannot hold: whether it is too small, as 1e-400 is, and not too large.
bool nearly_zero(std::string_view number) {
  const size_t exponent = number.find_first_of("eE");
  if (exponent != std::string_view::npos && number.substr(exponent + 1).starts_with('-')) return true;
  const size_t first = number.find_first_not_of("-0.");
  return exponent == std::string_view::npos && number.find('.') < first;
}

}  // namespace

bool parse_number(std::string_view text, double& value) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ptr != text.data() + text.size()) return false;
  if (result.ec == std::errc::result_out_of_range && nearly_zero(text)) return value = 0, true;
  return result.ec == std::errc() && std::isfinite(value);
}

CsvReader::CsvReader(std::string path, CsvFormat format)
    : path_(std::move(path)),
      name_(std::filesystem::path(path_).filename()),
      format_(std::move(format)),
      file_(path_) {
  MR_CHECK(!format_.separator.empty(), name_, ": the separator must not be empty");
  buffer_.resize(kReadBytes);
  look_at_beginning();
  columns_ = format_.columns;
  if (format_.header || columns_.empty()) {
    MR_CHECK(read_row(), path_, " is empty: it needs at least a header row");
    header_ = shown(row_), header_cells_ = cells_.size();
    if (columns_.empty()) columns_.assign(cells_.begin(), cells_.end());
    MR_CHECK(cells_.size() == columns_.size(), place(), ": ", cells_.size(), " cells, but the schema names ",
             columns_.size(), " columns");
  }
  asked_for_.resize(columns_.size(), 0);
  check_header();
}

CsvReader::~CsvReader() = default;

// What is no delimited text is told by its first bytes, before it makes other errors.
void CsvReader::look_at_beginning() {
  fill();
  const std::string_view text(buffer_.data(), std::min<size_t>(end_, 1 << 16));
  constexpr std::pair<std::string_view, const char*> kOthers[] = {
      {"PK\3\4", "a zip archive or an Excel workbook; unpack it, or save it as CSV"},
      {"BZh", "compressed with bzip2; unpack it, or compress it with gzip or zstd"},
      {"\xfd\x37zXZ", "compressed with xz; unpack it, or compress it with gzip or zstd"},
      {"PAR1", "a Parquet file; write it as CSV"},
      {"ARROW1", "an Arrow file; write it as CSV"},
      {"SQLite format 3", "a database; write its table as CSV"},
      {std::string_view("\xff\xfe\0\0", 4), "UTF-32; convert it, for example: iconv -f utf-32 -t utf-8"},
      {std::string_view("\0\0\xfe\xff", 4), "UTF-32; convert it, for example: iconv -f utf-32 -t utf-8"},
      {"\xff\xfe", "UTF-16; convert it, for example: iconv -f utf-16 -t utf-8"},
      {"\xfe\xff", "UTF-16; convert it, for example: iconv -f utf-16 -t utf-8"},
      {"<!DOCTYPE", "a web page, not a table"},
      {"<html", "a web page, not a table"},
      {"{\"", "JSON; write it as CSV: one row an event, the names in the first line"},
      {"[{", "JSON; write it as CSV: one row an event, the names in the first line"}};
  for (const auto& [magic, what] : kOthers) {
    const bool json = magic[0] == '{' || magic[0] == '[';
    MR_CHECK(!text.starts_with(magic) || (json && !format_.header), path_, " is ", what);
  }
  size_t zeros[2] = {};  // as first or second byte of a pair
  const std::string_view first = text.substr(0, 64);
  for (size_t i = 0; i + 1 < first.size(); i += 2)
    if ((first[i] == 0) != (first[i + 1] == 0)) ++zeros[first[i] != 0];
  MR_CHECK(first.size() < 8 || zeros[0] +
                                   zeros[1]<first.size() / 4, path_,
                                            " is UTF-16; convert it, for example: iconv -f utf-16", zeros[0]>
                                       zeros[1]
               ? "be"
               : "le",
           " -t utf-8");
  const size_t carriage = text.find('\r');
  MR_CHECK(carriage + 1 >= text.size() || text.find('\n') != std::string_view::npos, path_,
           " ends its lines with a carriage return alone; convert it, for example: tr '\\r' '\\n'");
}

void CsvReader::check_header() const {
  std::set<std::string_view> seen;
  for (size_t c = 0; c < columns_.size(); ++c) {
    const std::string& name = columns_[c];
    MR_CHECK(is_utf8(name), name_, ", line 1: the name of column ", c + 1, ", '", printable(name),
             "', is not UTF-8; convert the file, for example: iconv -f latin1 -t utf-8 ", name_);
    if (seen.insert(name).second) continue;
    MR_CHECK(!name.empty(), name_, ": columns ",
             std::find(columns_.begin(), columns_.end(), name) - columns_.begin() + 1, " and ", c + 1,
             " have no name; ", first_line(),
             "; remove the empty cells at the end of the lines, or name all columns");
    MR_FAIL(name_, ": two columns are named '", name, "'; ", first_line());
  }
}

// A cell of a column that nobody reads may hold anything.
void CsvReader::check_utf8() const {
  for (size_t c = 0; c < cells_.size(); ++c)
    MR_CHECK(!asked_for_[c] || is_utf8(cells_[c]), place(c), ": '", printable(shown(cells_[c])),
             "' is not UTF-8; convert the file, for example: iconv -f latin1 -t utf-8 ", name_);
}

// "its first line has 3 columns with the separator ',': user,item,day"
std::string CsvReader::first_line() const {
  if (header_cells_ == 0) return concat_message("the schema names its ", columns_.size(), " columns");
  return concat_message("its first line has ", header_cells_, header_cells_ == 1 ? " column" : " columns",
                        " with the separator '", visible(format_.separator), "': ", printable(header_),
                        other_separator(header_));
}

// A hint where another separator cuts a line into more cells than this one.
std::string CsvReader::other_separator(std::string_view line) const {
  size_t most = 1, cells_now = 1;
  std::string best;
  for (const std::string separator : {format_.separator.c_str(), ",", ";", "\t", "|", "::", " "}) {
    size_t cells = 1;
    for (size_t at = 0; (at = line.find(separator, at)) != std::string_view::npos; at += separator.size())
      ++cells;
    if (separator == format_.separator) cells_now = cells;
    if (cells > most) most = cells, best = separator;
  }
  return cells_now > 1 || best.empty() ? "" : "; is it \"separator\": \"" + visible(best) + "\"?";
}

bool CsvReader::next() {
  try {
    return read_checked();
  } catch (const Error&) {
    check_rest();
    throw;
  }
}

// A damaged archive shows as strange rows first, and as damaged at its end.
void CsvReader::check_rest() const {
  if (plain()) return;
  std::vector<char> rest(kReadBytes);
  while (file_.read(rest.data(), rest.size()) > 0) {
  }
}

bool CsvReader::read_checked() {
  if (!read_row()) return false;
  MR_CHECK(cells_.size() == columns_.size(), place(), ": ", cells_.size(),
           cells_.size() == 1 ? " cell" : " cells", " where ", columns_.size(), " are expected (separator '",
           visible(format_.separator), "'); the row starts with '",
           printable(shown(cells_.empty() ? std::string_view() : cells_[0])), "'", other_separator(row_));
  if (!ascii_) [[unlikely]]
    check_utf8();
  return true;
}

size_t CsvReader::column(std::string_view name, std::string_view asked) const {
  const auto found = std::find(columns_.begin(), columns_.end(), name);
  if (found == columns_.end()) {
    const auto near = nearest_name(name, columns_);
    const bool quoted =
        std::find(columns_.begin(), columns_.end(), concat_message('"', name, '"')) != columns_.end();
    MR_FAIL(path_, " has no column '", printable(name), "'",
            near.empty() || quoted ? ";" : "; did you mean '" + near + "'?",
            quoted ? " its cells are quoted: \"quotes\": true;" : "",
            asked.empty() ? "" : concat_message(" ", asked, " asks for it;"), " ", first_line());
  }
  const auto index = static_cast<size_t>(found - columns_.begin());
  asked_for_[index] = 1;
  return index;
}

double CsvReader::number(size_t column) const {
  double value = 0;
  const bool is_number = parse_number(cells_[column], value);
  if (!is_number) [[unlikely]]
    check_rest();
  MR_CHECK(is_number, place(column), ": '", printable(shown(cells_[column])), "' is not a number");
  return value;
}

std::string CsvReader::place() const { return concat_message(name_, ", line ", row_line_); }
std::string CsvReader::place(size_t column) const {
  return concat_message(place(), ", column '", printable(columns_[column]), "'");
}

// Appends to the buffer, keeping the unread part; false when nothing more came.
bool CsvReader::fill() {
  if (at_end_) return false;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_, begin_ = 0;
  }
  if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
  const size_t got = file_.read(buffer_.data() + end_, buffer_.size() - end_);
  if (got == 0) return at_end_ = true, false;
  end_ += got;
  return true;
}

// Finds the end of the row that starts at begin_: the first line break outside quotes, or the end of the
// file. A quote opens a cell only at its very start; elsewhere it is an ordinary character.
bool CsvReader::find_line(size_t& end) {
  size_t at = 0;  // relative to begin_, which moves when the buffer is filled
  size_t closed = std::string_view::npos - 1;
  bool inside = false;
  while (true) {
    const std::string_view text(buffer_.data() + begin_, end_ - begin_);
    if (!inside) {
      const size_t line_break = text.find('\n', at);
      const size_t quote = format_.quotes ? text.substr(0, line_break).find('"', at) : std::string_view::npos;
      if (quote == std::string_view::npos && line_break != std::string_view::npos)
        return end = line_break, true;
      at = std::min(quote, text.size());
    }
    for (; at < text.size(); ++at) {
      if (!inside && text[at] == '\n') return end = at, true;
      if (text[at] != '"') continue;
      if (inside) {
        inside = false, closed = at;
      } else {
        inside = at == 0 || closed + 1 == at || text.substr(0, at).ends_with(format_.separator);
      }
    }
    if (fill()) continue;
    MR_CHECK(!inside, place(), ": a quote is opened and never closed");
    end = end_ - begin_;
    return end > 0;
  }
}

bool CsvReader::read_row() {
  while (true) {
    row_line_ = line_ + 1;
    size_t end = 0;
    if (!find_line(end)) return false;
    std::string_view line(buffer_.data() + begin_, end);
    const size_t skip = std::min(end + 1, end_ - begin_);
    begin_ += skip;
    if (line_ == 0 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
    const bool quoted = format_.quotes && line.find('"') != std::string_view::npos;
    line_ += 1 + (quoted ? std::count(line.begin(), line.end(), '\n') : 0);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    row_ = line;
    ascii_ = is_ascii(line);
    quoted ? split_quoted(line) : split(line);
    return true;
  }
}

void CsvReader::split(std::string_view line) {
  cells_.clear();
  const size_t width = format_.separator.size();
  while (true) {
    const size_t end = width == 1 ? line.find(format_.separator[0]) : line.find(format_.separator);
    cells_.push_back(line.substr(0, end));
    if (end == std::string_view::npos) return;
    line.remove_prefix(end + width);
  }
}

void CsvReader::split_quoted(std::string_view line) {
  cells_.clear();
  // Reserved so that growth never moves a string that a cell points into.
  unquoted_.clear();
  unquoted_.reserve(line.size());
  while (true) {
    if (!line.starts_with('"')) {
      const size_t end = line.find(format_.separator);
      cells_.push_back(line.substr(0, end));
      if (end == std::string_view::npos) return;
      line.remove_prefix(end + format_.separator.size());
      continue;
    }
    size_t close = 1;
    bool doubled = false;
    while ((close = line.find('"', close)) != std::string_view::npos && close + 1 < line.size() &&
           line[close + 1] == '"')
      close += 2, doubled = true;
    MR_CHECK(close != std::string_view::npos, place(), ": a quote is opened and never closed");
    std::string_view text = line.substr(1, close - 1);
    if (doubled) {
      std::string& copy = unquoted_.emplace_back();
      for (size_t i = 0; i < text.size(); ++i) {
        copy += text[i];
        if (text[i] == '"') ++i;
      }
      text = copy;
    }
    cells_.push_back(text);
    line.remove_prefix(close + 1);
    if (line.empty()) return;
    MR_CHECK(line.starts_with(format_.separator), place(), ": text after a closing quote: '",
             printable(shown(line)), "'; where quotes mean nothing say \"quotes\": false");
    line.remove_prefix(format_.separator.size());
  }
}

}  // namespace mixrec
