#include "mixrec/core/error.h"

#include "mixrec/core/printable.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace mixrec::detail {

namespace {

thread_local const char* op_name = "";

// Sources whose errors speak of what a user gave: files, configurations, options, requests, the environment.
constexpr std::string_view kAboutUserInput[] = {"data/",        "train/",         "core/files/",
                                                "core/cpu.",    "core/options.",  "models/options",
                                                "models/list.", "optim/options.", "optim/schedule."};

bool is_about_user_input(std::string_view path) {
  return std::any_of(std::begin(kAboutUserInput), std::end(kAboutUserInput),
                     [&](std::string_view start) { return path.starts_with(start); });
}

// The path below the project's root.  Sources are compiled from there, headers are included through a folder
// named mixrec; of a program elsewhere the last folder and the file say enough.
std::string_view project_path(std::string_view path) {
  constexpr std::string_view kHeaders = "include/mixrec/";
  if (const auto at = path.rfind(kHeaders); at != std::string_view::npos)
    return path.substr(at + kHeaders.size());
  if (!path.starts_with('/')) return path;
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
  const std::string shown = printable_message(message);
  if (*op_name) text = concat_message("[", op_name, "] ");
  const std::string_view path = project_path(file);
  if (is_about_user_input(path)) throw Error(text + shown);
  throw Error(concat_message(text, shown, " (", path, ":", line, ")"));
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
