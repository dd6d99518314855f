// Errors: one exception type, and the macros that every check in the library goes through.
//
// A message is one sentence that names the operation, both values and, where one exists, a hint:
//
//   [matmul] inner sizes differ: [2, 3] x [4, 5] (ops/matmul.cpp:28)
//
// Errors are thrown, never aborted.  In front is the innermost `MR_OP` of the running thread.  The place at the
// end is left out where the sentence is for a user: in data/, train/ and what else core/error.cpp lists.
#pragma once

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace mixrec {

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
};

// Joins its arguments with operator<<.
template <class... Args>
std::string concat_message(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// The nearest of `candidates` to `word` by edit distance, or "" when none is near enough to be a plausible
// slip.
template <class Range>
std::string nearest_name(std::string_view word, const Range& candidates);

namespace detail {

// Name of the operation that the current thread is in, "" outside any.
const char* current_op();

// Sets the operation name for its lifetime; MR_OP is its only user.
class OpScope {
 public:
  explicit OpScope(const char* name);
  ~OpScope();
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  const char* outer_;
};

// Throws Error("[op] message (file:line)"), or without a place; `file` is cut to what is below the root.
[[noreturn]] void fail(const char* file, int line, const std::string& message);

int edit_distance(std::string_view a, std::string_view b);

}  // namespace detail

template <class Range>
std::string nearest_name(std::string_view word, const Range& candidates) {
  std::string best;
  int best_distance = static_cast<int>(word.size()) / 3 + 2;
  for (const auto& name : candidates) {
    const std::string_view candidate = name;
    // No slip is that long, and the distance itself costs the product of both lengths.
    const size_t longer = std::max(candidate.size(), word.size()),
                 shorter = std::min(candidate.size(), word.size());
    if (longer - shorter >= static_cast<size_t>(best_distance)) continue;
    const int distance = detail::edit_distance(word, candidate);
    if (distance < best_distance) best_distance = distance, best = candidate;
  }
  return best;
}

}  // namespace mixrec

// First line of every op: names it in errors, in the profiler and in the coverage test.
#define MR_OP(name) ::mixrec::detail::OpScope mr_op_scope_(name)

// Fails with the given sentence: MR_FAIL("needs a matrix, got ", x.shape());
#define MR_FAIL(...) ::mixrec::detail::fail(__FILE__, __LINE__, ::mixrec::concat_message(__VA_ARGS__))

// Checks a condition that a caller can break.  Stays on in every build.
#define MR_CHECK(condition, ...)   \
  do {                             \
    if (!(condition)) [[unlikely]] \
      MR_FAIL(__VA_ARGS__);        \
  } while (0)
