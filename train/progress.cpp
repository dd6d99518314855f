#include "mixrec/train/progress.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <sys/ioctl.h>
#include <unistd.h>

namespace mixrec {

namespace {

constexpr double kRedraw = 0.1, kFirstLine = 5, kLongestSilence = 60;

template <class... Args>
std::string format(const char* pattern, Args... args) {
  std::string text(static_cast<size_t>(std::snprintf(nullptr, 0, pattern, args...)), '\0');
  std::snprintf(text.data(), text.size() + 1, pattern, args...);
  return text;
}

std::string bar(double share, size_t width) {
  const auto full = static_cast<size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width));
  return "[" + std::string(full, '=') + std::string(width - full, ' ') + "]";
}

bool begins_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }

// Cells that a terminal gives to the character that begins at text[at]: two from U+1100 on, where the wide scripts
// are.
int cells_at(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  if (lead < 0xE1) return 1;
  if (lead > 0xE1 || at + 1 >= text.size()) return lead == 0xE2 ? 1 : 2;
  return static_cast<unsigned char>(text[at + 1]) >= 0x84 ? 2 : 1;
}

int cells_of(std::string_view text) {
  int cells = 0;
  for (size_t i = 0; i < text.size(); ++i)
    if (begins_character(text[i])) cells += cells_at(text, i);
  return cells;
}

// The longest beginning of `text`, in whole characters, that takes at most `width` cells.
std::string cut(const std::string& text, int width) {
  int cells = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!begins_character(text[i])) continue;
    cells += cells_at(text, i);
    if (cells > width) return text.substr(0, i);
  }
  return text;
}

// A part of a line.  Parts of a lower rank are left out first.
struct Part {
  int rank;
  std::string text;
};

std::string fit(std::span<const Part> parts, int width) {
  int top = 0;
  for (const Part& part : parts) top = std::max(top, part.rank);
  std::string line;
  for (int rank = 0; rank <= top; ++rank) {
    line.clear();
    for (const Part& part : parts)
      if (part.rank >= rank && !part.text.empty()) line += (line.empty() ? "" : "  ") + part.text;
    if (cells_of(line) <= width) break;
  }
  return cut(line, width);
}

// Of the terminal behind `out`, asked each time: it may have been resized.
int terminal_width(std::FILE* out) {
  winsize size{};
  if (::ioctl(::fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* columns = std::getenv("COLUMNS");
  const int named = columns ? std::atoi(columns) : 0;
  return named > 0 ? named : 80;
}

bool is_terminal(std::FILE* out) {
  const char* kind = std::getenv("TERM");
  return ::isatty(::fileno(out)) == 1 && kind && std::strcmp(kind, "dumb") != 0;
}

double system_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
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

std::string training_line(const TrainingState& state, const TrainingRate& rate, int width) {
  std::string step = state.refitting ? "refit step " : "step ";
  step += std::to_string(state.step);
  std::string bar_text;
  if (state.total_steps > 0) {
    step += "/" + std::to_string(state.total_steps);
    bar_text =
        bar(static_cast<double>(state.step) / static_cast<double>(state.total_steps), width < 100 ? 10 : 20);
  }
  const std::string flops =
      rate.flops_per_second > 0 ? format("%.1f GFLOP/s", rate.flops_per_second / 1e9) : "";
  const std::string left = rate.seconds_left >= 0 ? "eta " + clock_text(rate.seconds_left) : "";
  const Part parts[] = {{1, bar_text},
                        {6, step},
                        {2, format("epoch %lld", static_cast<long long>(state.epoch))},
                        {5, format("loss %.4f", state.loss)},
                        {3, count_text(rate.samples_per_second) + " samples/s"},
                        {0, flops},
                        {4, left}};
  return fit(parts, width);
}

std::string stage_line(const std::string& name, double share, double seconds, int width) {
  const bool known = share >= 0;
  const Part parts[] = {{0, known ? bar(share, width < 100 ? 10 : 20) : ""},
                        {3, name},
                        {2, known ? format("%.0f %%", 100 * std::min(share, 1.0)) : ""},
                        {1, clock_text(seconds)}};
  return fit(parts, width);
}

Progress::Progress(std::FILE* out, bool quiet, std::function<double()> clock)
    : out_(out),
      quiet_(quiet),
      terminal_(is_terminal(out)),
      clock_(clock ? std::move(clock) : system_seconds),
      start_(clock_()) {
  shown_ = start_;
}

Progress::~Progress() { clear(); }

void Progress::update(const TrainingState& state) {
  const double now = clock_();
  stage_.clear();
  // The step that is running when the clock starts is not counted in the rates.
  if (first_time_ < 0 || state.refitting != first_.refitting || state.step <= last_step_)
    first_ = state, first_time_ = now;
  last_step_ = state.step;
  if (!due(now)) return;
  const TrainingRate now_rate = rate(state, now);
  show(training_line(state, now_rate, terminal_ ? terminal_width(out_) - 1 : 1000));
}

void Progress::stage(const std::string& name, double share) {
  const double now = clock_();
  const bool other = name != stage_;
  if (other) stage_ = name, stage_start_ = now;
  if (!due(now) && !(other && terminal_ && !quiet_)) return;
  show(stage_line(name, share, now - stage_start_, terminal_ ? terminal_width(out_) - 1 : 1000));
}

void Progress::say(const std::string& text) {
  if (quiet_) return;
  clear();
  std::fprintf(out_, "%s\n", text.c_str());
  std::fflush(out_);
}

// Whether a line is due, which is then taken as shown.
bool Progress::due(double now) {
  if (quiet_) return false;
  const double wait =
      terminal_ ? (drawn_ ? kRedraw : 0) : std::clamp((now - start_) / 10, kFirstLine, kLongestSilence);
  if (now - shown_ < wait) return false;
  shown_ = now;
  return true;
}

void Progress::show(const std::string& line) {
  if (!terminal_) {
    std::fprintf(out_, "%s\n", line.c_str());
  } else {
    // Over the old one where that has one row, so that nothing flickers.
    if (drawn_ > terminal_width(out_)) clear();
    std::fprintf(out_, "\r%s\033[K", line.c_str());
    drawn_ = cells_of(line);
  }
  std::fflush(out_);
}

// A terminal that became narrower has wrapped the line: all its rows go.
void Progress::clear() {
  if (drawn_ == 0) return;
  const int rows = (drawn_ - 1) / terminal_width(out_);
  if (rows > 0) std::fprintf(out_, "\033[%dA", rows);
  std::fputs("\r\033[J", out_);
  std::fflush(out_);
  drawn_ = 0;
}

TrainingRate Progress::rate(const TrainingState& state, double now) {
  const double seconds = now - first_time_;
  const auto steps = static_cast<double>(state.step - first_.step);
  if (steps <= 0 || seconds <= 0) return {};
  TrainingRate rate;
  rate.samples_per_second = static_cast<double>(state.samples - first_.samples) / seconds;
  rate.flops_per_second = (state.flops - first_.flops) / seconds;
  if (state.total_steps > 0)
    rate.seconds_left = seconds / steps * static_cast<double>(state.total_steps - state.step);
  return rate;
}

}  // namespace mixrec
