#include "mixrec/data/csv_reader.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <set>
#include <sys/stat.h>
#include <unistd.h>

namespace mixrec {

namespace {

constexpr size_t kReadBytes = 1 << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Long cells are cut in messages.
std::string shown(std::string_view text) {
  constexpr size_t kLongest = 60;
  return text.size() <= kLongest ? std::string(text) : std::string(text.substr(0, kLongest)) + "...";
}

}  // namespace

bool parse_number(std::string_view text, double& value) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() && result.ptr == text.data() + text.size() && std::isfinite(value);
}

CsvReader::CsvReader(std::string path, CsvFormat format)
    : path_(std::move(path)), name_(std::filesystem::path(path_).filename()), format_(std::move(format)) {
  MR_CHECK(!format_.separator.empty(), name_, ": the separator must not be empty");
  file_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  MR_CHECK(file_ >= 0, "cannot open ", path_, ": ", std::strerror(errno));
  struct stat status {};
  MR_CHECK(::fstat(file_, &status) == 0 && S_ISREG(status.st_mode), path_, " is not a file");
  size_ = status.st_size;
  buffer_.resize(kReadBytes);

  columns_ = format_.columns;
  if (format_.header || columns_.empty()) {
    MR_CHECK(read_row(), path_, " is empty: it needs at least a header row");
    if (columns_.empty()) columns_.assign(cells_.begin(), cells_.end());
    MR_CHECK(cells_.size() == columns_.size(), place(), ": ", cells_.size(), " cells, but the schema names ",
             columns_.size(), " columns");
  }
  std::set<std::string_view> seen;
  for (const auto& column : columns_)
    MR_CHECK(seen.insert(column).second, name_, ": two columns are named '", column, "'");
}

CsvReader::~CsvReader() {
  if (file_ >= 0) ::close(file_);
}

bool CsvReader::next() {
  if (!read_row()) return false;
  MR_CHECK(cells_.size() == columns_.size(), place(), ": ", cells_.size(),
           cells_.size() == 1 ? " cell" : " cells", " where ", columns_.size(), " are expected (separator '",
           format_.separator == "\t" ? "\\t" : format_.separator, "'); the row starts with '",
           shown(cells_.empty() ? std::string_view() : cells_[0]), "'");
  return true;
}

size_t CsvReader::column(std::string_view name) const {
  const auto found = std::find(columns_.begin(), columns_.end(), name);
  if (found == columns_.end()) {
    const auto near = nearest_name(name, columns_);
    MR_FAIL(path_, " has no column '", name, "'", near.empty() ? "" : "; did you mean '" + near + "'?");
  }
  return static_cast<size_t>(found - columns_.begin());
}

double CsvReader::number(size_t column) const {
  double value = 0;
  MR_CHECK(parse_number(cells_[column], value), place(column), ": '", shown(cells_[column]),
           "' is not a number");
  return value;
}

std::string CsvReader::place() const { return concat_message(name_, ", line ", row_line_); }
std::string CsvReader::place(size_t column) const {
  return concat_message(place(), ", column '", columns_[column], "'");
}

// Appends to the buffer, keeping the unread part; false when nothing more came.
bool CsvReader::fill() {
  if (at_end_) return false;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_, begin_ = 0;
  }
  if (end_ == buffer_.size()) buffer_.resize(2 * buffer_.size());
  const ssize_t got = ::read(file_, buffer_.data() + end_, buffer_.size() - end_);
  MR_CHECK(got >= 0, "cannot read ", path_, ": ", std::strerror(errno));
  if (got == 0) return at_end_ = true, false;
  end_ += static_cast<size_t>(got);
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
    consumed_ += static_cast<int64_t>(skip);
    if (line_ == 0 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
    const bool quoted = format_.quotes && line.find('"') != std::string_view::npos;
    line_ += 1 + (quoted ? std::count(line.begin(), line.end(), '\n') : 0);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
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
    MR_CHECK(line.starts_with(format_.separator), place(), ": text after a closing quote: '", shown(line),
             "'");
    line.remove_prefix(format_.separator.size());
  }
}

}  // namespace mixrec
