// What a person sees while a run trains: one line that is redrawn on a terminal, plain lines elsewhere.
//
//   step 1200/4000  epoch 1  loss 0.5934  41.3k samples/s  18.2 GFLOP/s  eta 1:08
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

namespace mixrec {

class Progress {
 public:
  struct State {
    int64_t step = 0, total_steps = 0;  // total 0: not known, no ETA
    int64_t epoch = 0;
    double loss = 0;
    int64_t samples = 0;  // since the start of this process
    double flops = 0;     // the same; 0: not counted
  };

  explicit Progress(std::FILE* out = stderr, bool quiet = false);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Call every step: a terminal is redrawn ten times a second, a file gets a line every `log_every` steps.
  void update(const State& state, int64_t log_every);

  // A message of its own, above the line being drawn.
  void say(const std::string& text);

 private:
  std::string line(const State& state, double seconds) const;
  void clear();

  using Clock = std::chrono::steady_clock;
  std::FILE* out_;
  bool quiet_, terminal_, drawn_ = false;
  int64_t first_step_ = -1;
  Clock::time_point start_, last_;
};

// 93 -> "1:33", 4000 -> "1:06:40"
std::string clock_text(double seconds);
// 41321 -> "41.3k"
std::string count_text(double count);

}  // namespace mixrec
