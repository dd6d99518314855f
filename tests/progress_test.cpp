// The line that is redrawn on a terminal, and the plain lines elsewhere.
#include "mixrec/train/progress.h"

#include "mixrec/tests/skip.h"
#include "mixrec/tests/temporary_folder.h"

#include <algorithm>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <string>
#include <sys/ioctl.h>
#include <unistd.h>
#include <vector>

using namespace mixrec;
using namespace mixrec::test;

namespace {

const TrainingState kState{.step = 1'200'345,
                           .total_steps = 40'000'000,
                           .epoch = 12,
                           .loss = 12.59341,
                           .samples = 614'576'640,
                           .flops = 1e15,
                           .refitting = true};
const TrainingRate kRate{.samples_per_second = 41'321, .flops_per_second = 18.2e9, .seconds_left = 90'061};

// A terminal of the kernel's, whose other end the test reads.
class Terminal {
 public:
  explicit Terminal(unsigned short width) : main_(::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK)) {
    if (main_ < 0 || ::grantpt(main_) != 0 || ::unlockpt(main_) != 0) return;
    resize(width);
    out_ = std::fopen(::ptsname(main_), "w");
  }
  ~Terminal() {
    if (out_) std::fclose(out_);
    if (main_ >= 0) ::close(main_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void resize(unsigned short width) {
    const winsize size{24, width, 0, 0};
    ::ioctl(main_, TIOCSWINSZ, &size);
  }
  std::FILE* out() const { return out_; }
  std::string written() {
    std::string text;
    char buffer[4096];
    for (ssize_t n; (n = ::read(main_, buffer, sizeof buffer)) > 0;)
      text.append(buffer, static_cast<size_t>(n));
    return text;
  }

 private:
  int main_;
  std::FILE* out_ = nullptr;
};

// The texts between carriage returns, without escape sequences.
std::vector<std::string> drawn_lines(const std::string& written) {
  std::vector<std::string> lines{""};
  for (size_t i = 0; i < written.size(); ++i) {
    if (written[i] == '\033') {
      while (i < written.size() && !std::isalpha(static_cast<unsigned char>(written[i]))) ++i;
    } else if (written[i] == '\r') {
      lines.emplace_back();
    } else {
      lines.back() += written[i];
    }
  }
  return lines;
}

}  // namespace

TEST_SUITE("progress") {
  TEST_CASE("a training line fits every width, and says most where there is room") {
    const std::string whole =
        "[                    ]  refit step 1200345/40000000  epoch 12  loss 12.5934  41.3k samples/s  "
        "18.2 GFLOP/s  eta 25:01:01";
    size_t before = 0;
    for (int width = 20; width <= 200; ++width) {
      const std::string line = training_line(kState, kRate, width);
      CAPTURE(width);
      CHECK(line.size() <= static_cast<size_t>(width));
      CHECK(line.find("refit step 1200345") != std::string::npos);
      // What fits stays when there is more room; only the bar is shorter below 100.
      if (width != 100) CHECK(line.size() >= before);
      before = line.size();
    }
    CHECK(training_line(kState, kRate, 200) == whole);
    const TrainingState usual{.step = 1200, .total_steps = 4000, .epoch = 1, .loss = 0.59341};
    CHECK(training_line(usual, {.samples_per_second = 41'321, .flops_per_second = 18.2e9, .seconds_left = 68},
                        79) ==
          "[===       ]  step 1200/4000  epoch 1  loss 0.5934  41.3k samples/s  eta 1:08");
    CHECK(training_line(usual, {.samples_per_second = 41'321, .seconds_left = 68}, 39) ==
          "step 1200/4000  loss 0.5934  eta 1:08");
    CHECK(training_line({.step = 7, .epoch = 2, .loss = 0.5}, {.samples_per_second = 10}, 120) ==
          "step 7  epoch 2  loss 0.5000  10 samples/s");
  }

  TEST_CASE("a stage's line fits every width, in cells and whole characters") {
    for (int width = 20; width <= 200; ++width)
      CHECK(stage_line("reading a_file_with_a_rather_long_name.csv", 0.5, 61, width).size() <=
            static_cast<size_t>(width));
    CHECK(stage_line("reading log.csv", 0.27, 3, 79) == "[==        ]  reading log.csv  27 %  0:03");
    CHECK(stage_line("grouping", -1, 3, 79) == "grouping  0:03");
    CHECK(stage_line("reading Bücher.csv", 0.5, 3, 18) == "reading Bücher.csv");
    CHECK(stage_line("reading Bücher.csv", 0.5, 3, 11) == "reading Büc");
    // A wide character takes two cells, so the third does not fit in 13.
    CHECK(stage_line("reading 日本語.csv", 0.5, 3, 13) == "reading 日本");
  }

  TEST_CASE("a terminal is redrawn in one row, as wide as it is now") {
    ::setenv("TERM", "xterm", 1);
    Terminal terminal(80);
    if (!terminal.out()) return skip("a terminal: this system gives none");
    double now = 100;
    Progress progress(terminal.out(), false, [&] { return now; });
    TrainingState state = kState;
    const auto draw = [&] {
      now += 1, ++state.step, state.samples += 512, state.flops += 1e9;
      progress.update(state);
    };
    for (int i = 0; i < 5; ++i) draw();
    const std::string at_80 = terminal.written();
    CHECK(at_80.find('\n') == std::string::npos);
    REQUIRE(drawn_lines(at_80).size() >= 5);
    size_t longest = 0;
    for (const auto& line : drawn_lines(at_80)) longest = std::max(longest, line.size());
    CHECK(longest < 80);
    CHECK(longest > 60);
    // Narrower: what was drawn now takes two rows, which go before the next line.
    terminal.resize(50);
    draw();
    const std::string narrowed = terminal.written();
    CHECK(narrowed.find("\033[1A\r\033[J") == 0);
    for (const auto& line : drawn_lines(narrowed)) CHECK(line.size() < 50);
    terminal.resize(120);
    draw();
    CHECK(drawn_lines(terminal.written()).back().size() > 80);
    // Too soon: nothing is drawn.
    now -= 0.95;
    draw();
    CHECK(terminal.written().empty());
    progress.say("validation AUC .7");
    CHECK(terminal.written() == "\r\033[Jvalidation AUC .7\r\n");
  }

  TEST_CASE("plain lines, at longer and longer intervals, where there is no terminal") {
    const TemporaryFolder folder;
    std::FILE* out = std::fopen((folder / "log").c_str(), "w");
    double now = 7;
    {
      Progress progress(out, false, [&] { return now; });
      for (int second = 0; second < 10; ++second, now += 1) progress.stage("reading log.csv", 0.1 * second);
      for (int64_t step = 1; step <= 3600; ++step, now += 1)
        progress.update(
            {.step = step, .total_steps = 7200, .epoch = 1, .loss = 0.5, .samples = step * 512, .flops = 0});
      progress.say("done");
    }
    std::fclose(out);
    const std::string text = read_file(folder / "log");
    CHECK(text.find("[==========          ]  reading log.csv  50 %  0:05\n") == 0);
    CHECK(text.find("step 41/7200  epoch 1  loss 0.5000  512 samples/s  eta 1:59:19\n") != std::string::npos);
    const auto lines = std::count(text.begin(), text.end(), '\n');
    CHECK(lines >= 60);
    CHECK(lines <= 100);
    CHECK(text.find_first_of("\r\033") == std::string::npos);
    CHECK(text.ends_with("done\n"));
  }

  TEST_CASE("the rates of a refit are its own") {
    const TemporaryFolder folder;
    std::FILE* out = std::fopen((folder / "log").c_str(), "w");
    double now = 0;
    {
      Progress progress(out, false, [&] { return now; });
      // 1000 fast steps, then slow ones.
      for (int64_t step = 1; step <= 1000; ++step, now += 0.001)
        progress.update({.step = step, .total_steps = 1000, .samples = step});
      for (int64_t step = 1; step <= 11; ++step, now += 1)
        progress.update({.step = step, .total_steps = 11, .samples = 1000 + step, .refitting = true});
    }
    std::fclose(out);
    CHECK(read_file(folder / "log").find("refit step 5/11  epoch 0  loss 0.0000  1 samples/s  eta 0:06\n") !=
          std::string::npos);
  }

  TEST_CASE("times and counts are short") {
    CHECK(clock_text(93.4) == "1:33");
    CHECK(clock_text(4000) == "1:06:40");
    CHECK(count_text(41321) == "41.3k");
    CHECK(count_text(999) == "999");
  }
}
