#include "mixrec/core/error.h"

#include <algorithm>
#include <vector>

namespace mixrec::detail {

namespace {

thread_local const char* op_name = "";

// "…/ops/matmul.cpp" -> "ops/matmul.cpp": the last folder and the file say enough.
std::string_view short_path(std::string_view path) {
  const auto file = path.rfind('/');
  if (file == std::string_view::npos || file == 0) return path;
  const auto folder = path.rfind('/', file - 1);
  return folder == std::string_view::npos ? path : path.substr(folder + 1);
}

}  // namespace

const char* current_op() { return op_name; }

OpScope::OpScope(const char* name) : outer_(op_name) { op_name = name; }
OpScope::~OpScope() { op_name = outer_; }

void fail(const char* file, int line, const std::string& message) {
  std::string text;
  if (*op_name) text = concat_message("[", op_name, "] ");
  throw Error(concat_message(text, message, " (", short_path(file), ":", line, ")"));
}

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int substitute = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

}  // namespace mixrec::detail
