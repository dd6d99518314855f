#include "mixrec/train/progress.h"

#include <algorithm>
#include <cmath>
#include <unistd.h>

namespace mixrec {

namespace {

template <class... Args>
std::string format(const char* pattern, Args... args) {
  std::string text(static_cast<size_t>(std::snprintf(nullptr, 0, pattern, args...)), '\0');
  std::snprintf(text.data(), text.size() + 1, pattern, args...);
  return text;
}

std::string bar(double share) {
  constexpr size_t kWidth = 20;
  const auto full = static_cast<size_t>(std::clamp(share, 0.0, 1.0) * kWidth);
  std::string text = "[                    ] ";
  text.replace(1, full, full, '=');
  return text;
}

}  // namespace

std::string clock_text(double seconds) {
  const auto whole = static_cast<long long>(std::llround(std::max(seconds, 0.0)));
  if (whole < 3600) return format("%lld:%02lld", whole / 60, whole % 60);
  return format("%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
}

std::string count_text(double count) {
  if (count < 1e3) return format("%.0f", count);
  if (count < 1e6) return format("%.1fk", count / 1e3);
  if (count < 1e9) return format("%.1fM", count / 1e6);
  return format("%.1fG", count / 1e9);
}

Progress::Progress(std::FILE* out, bool quiet)
    : out_(out), quiet_(quiet), terminal_(::isatty(::fileno(out)) == 1), start_(Clock::now()) {}

Progress::~Progress() { clear(); }

void Progress::update(const State& state, int64_t log_every) {
  const Clock::time_point now = Clock::now();
  // The step that is running when the clock starts is not counted in the rate of steps.
  if (first_step_ < 0) first_step_ = state.step - 1;
  if (quiet_) return;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  if (!terminal_) {
    if (log_every > 0 && state.step % log_every == 0)
      std::fprintf(out_, "%s\n", line(state, seconds).c_str());
    return;
  }
  if (drawn_ && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  const double share = state.total_steps ? static_cast<double>(state.step) / state.total_steps : 0;
  std::fprintf(out_, "\r%s%s\033[K", state.total_steps ? bar(share).c_str() : "",
               line(state, seconds).c_str());
  std::fflush(out_);
}

void Progress::say(const std::string& text) {
  if (quiet_) return;
  clear();
  std::fprintf(out_, "%s\n", text.c_str());
  std::fflush(out_);
}

std::string Progress::line(const State& state, double seconds) const {
  std::string text = format("step %lld", static_cast<long long>(state.step));
  if (state.total_steps) text += format("/%lld", static_cast<long long>(state.total_steps));
  text += format("  epoch %lld  loss %.4f  ", static_cast<long long>(state.epoch), state.loss);
  text += count_text(state.samples / seconds) + " samples/s";
  if (state.flops > 0) text += format("  %.1f GFLOP/s", state.flops / seconds / 1e9);
  const auto done = static_cast<double>(state.step - first_step_);
  if (state.total_steps && done > 0)
    text += "  eta " + clock_text(seconds / done * static_cast<double>(state.total_steps - state.step));
  return text;
}

void Progress::clear() {
  if (!drawn_) return;
  std::fputs("\r\033[K", out_);
  std::fflush(out_);
  drawn_ = false;
}

}  // namespace mixrec
