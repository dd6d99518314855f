// What a person sees while a run is prepared and trains: one line that is redrawn on a terminal, plain lines
// elsewhere.
//
//   [=====               ]  reading log.csv  27 %  0:03
//   [=======             ]  step 1200/4000  epoch 1  loss 0.5934  41.3k samples/s  18.2 GFLOP/s  eta 1:08
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>

namespace mixrec {

struct TrainingState {
  int64_t step = 0, total_steps = 0;  // total 0: not known, no ETA
  int64_t epoch = 0;
  double loss = 0;
  int64_t samples = 0;     // since the start of this process
  double flops = 0;        // the same; 0: not counted
  bool refitting = false;  // steps count from 0 again in each phase
};

// What a line says beside the state: rates and the time that is left, from what this phase has done so far.
struct TrainingRate {
  double samples_per_second = 0, flops_per_second = 0;
  double seconds_left = -1;  // -1: not known
};

// One line of at most `width` cells of a terminal: the less important parts are left out first, at the end the text
// is cut.
std::string training_line(const TrainingState& state, const TrainingRate& rate, int width);
// The same for other work; `share` 0 to 1, or -1 where it is not known.
std::string stage_line(const std::string& name, double share, double seconds, int width);

class Progress {
 public:
  // `clock` gives seconds from any origin; none: the system's.
  explicit Progress(std::FILE* out = stderr, bool quiet = false, std::function<double()> clock = {});
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Call it as often as there is news: a terminal is redrawn ten times a second, anything else gets a line after
  // five seconds, and then whenever a tenth more time has gone, at least every minute.
  void update(const TrainingState& state);
  void stage(const std::string& name, double share = -1);

  // A message of its own, above the line being drawn.
  void say(const std::string& text);

 private:
  bool due(double now);
  void show(const std::string& line);
  void clear();
  TrainingRate rate(const TrainingState& state, double now);

  std::FILE* out_;
  bool quiet_, terminal_;
  std::function<double()> clock_;
  int drawn_ = 0;     // cells of the line that is on the terminal
  double shown_ = 0;  // when a line was last shown
  double start_ = 0;  // of the process; of this stage
  double stage_start_ = 0;
  std::string stage_;
  TrainingState first_;     // at the start of this phase
  double first_time_ = -1;  // -1: no phase has begun
  int64_t last_step_ = 0;
};

// 93 -> "1:33", 4000 -> "1:06:40"
std::string clock_text(double seconds);
// 41321 -> "41.3k"
std::string count_text(double count);

}  // namespace mixrec
