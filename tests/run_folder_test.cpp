#include "mixrec/train/run_folder.h"

#include "mixrec/core/error.h"
#include "mixrec/tests/temporary_folder.h"
#include "mixrec/train/signals.h"
#include "mixrec/train/tensorboard.h"

#include <algorithm>
#include <bit>
#include <csignal>
#include <cstring>
#include <doctest/doctest.h>
#include <filesystem>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

using namespace mixrec;
using test::read_file;
using test::TemporaryFolder;
using test::write_file;

TEST_SUITE("run folder") {
  TEST_CASE("a run is never overwritten") {
    const TemporaryFolder folder;
    const std::string path = folder / "deep/run";
    const std::string config = RunFolder::create(path).config_path();
    CHECK_NOTHROW(RunFolder::create(path));  // still empty
    write_file(config, "{}");
    CHECK_THROWS_WITH_AS(RunFolder::create(path),
                         doctest::Contains("already holds a run; continue it with --resume"), Error);
    CHECK_NOTHROW(RunFolder::resume(path));
    write_file(folder / "other", "x");
    CHECK_THROWS_WITH_AS(RunFolder::create(folder.path()), doctest::Contains("is not empty"), Error);
    CHECK_THROWS_WITH_AS(RunFolder::create(folder / "other"), doctest::Contains("is a file"), Error);
    CHECK_THROWS_WITH_AS(RunFolder::resume(folder / "absent"), doctest::Contains("there is no run folder"),
                         Error);
    CHECK_THROWS_WITH_AS(RunFolder::resume(folder.path()), doctest::Contains("holds no config.json"), Error);
  }

  TEST_CASE("metrics are cut back to the checkpoint") {
    const TemporaryFolder folder;
    RunFolder run = RunFolder::create(folder / "run");
    run.log("{\"step\":1}");
    run.log("{\"step\":2}");
    const int64_t bytes = run.sync_metrics();
    run.log("{\"step\":3}");
    run.cut_metrics(bytes);
    run.log("{\"step\":4}");
    CHECK(read_file(folder / "run/metrics.jsonl") == "{\"step\":1}\n{\"step\":2}\n{\"step\":4}\n");
  }

  TEST_CASE("lost lines of metrics do not keep a run from going on, and half a line is ended") {
    const TemporaryFolder folder;
    RunFolder run = RunFolder::create(folder / "run");
    run.log("{\"step\":1}");
    CHECK_FALSE(run.cut_metrics(1000));
    write_file(folder / "run/metrics.jsonl", "{\"st");
    CHECK_FALSE(run.cut_metrics(11));
    run.log("{\"step\":2}");
    CHECK(read_file(folder / "run/metrics.jsonl") == "{\"st\n{\"step\":2}\n");
    std::filesystem::remove(folder / "run/metrics.jsonl");
    CHECK_FALSE(run.cut_metrics(11));
    CHECK(read_file(folder / "run/metrics.jsonl").empty());
  }

  TEST_CASE("one process trains into a folder, the other is told who does") {
    const TemporaryFolder folder;
    const std::string path = folder / "run";
    {
      RunFolder run = RunFolder::create(path);
      write_file(run.config_path(), "{}");
      RunFolder other = RunFolder::resume(path);  // reading is free
      CHECK_THROWS_WITH_AS(other.lock(), doctest::Contains(("process " + std::to_string(::getpid())).c_str()),
                           Error);
      // The lock dies with its process, however that ends.
      const pid_t child = ::fork();
      if (child == 0) ::_exit(0);
      int status = 0;
      ::waitpid(child, &status, 0);
      CHECK_THROWS_AS(other.lock(), Error);
    }
    RunFolder next = RunFolder::resume(path);
    CHECK_NOTHROW(next.lock());
    CHECK_NOTHROW(next.lock());
  }
}

TEST_SUITE("tensorboard") {
  TEST_CASE("crc32c gives the vectors of RFC 3720, appendix B.4") {
    CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aau);
    CHECK(crc32c(std::string(32, '\xff')) == 0x62a8ab43u);
    std::string rising;
    for (char byte = 0; byte < 32; ++byte) rising += byte;
    CHECK(crc32c(rising) == 0x46dd794eu);
    CHECK(crc32c("123456789") == 0xe3069283u);
  }

  TEST_CASE("records and their protobuf are as a decoder expects") {
    const TemporaryFolder folder;
    std::string path;
    {
      EventWriter writer(folder.path(), 300);
      path = writer.path();
      writer.scalars(300,
                     std::vector<std::pair<std::string, double>>{{"train/loss", 0.5}, {"test/auc", 0.75}});
      writer.text(300, "run", "which");
    }
    const std::string bytes = read_file(path);
    std::vector<std::string> events;
    for (size_t at = 0; at < bytes.size();) {
      uint64_t length;
      uint32_t length_crc, data_crc;
      std::memcpy(&length, &bytes[at], 8);
      std::memcpy(&length_crc, &bytes[at + 8], 4);
      // Unmasking as TensorFlow's crc32c::Unmask describes it: subtract, then rotate back.
      CHECK(std::rotl(length_crc - 0xa282ead8u, 15) == crc32c(bytes.substr(at, 8)));
      REQUIRE(at + 16 + length <= bytes.size());
      events.push_back(bytes.substr(at + 12, length));
      std::memcpy(&data_crc, &bytes[at + 12 + length], 4);
      CHECK(std::rotl(data_crc - 0xa282ead8u, 15) == crc32c(events.back()));
      at += 16 + length;
    }
    REQUIRE(events.size() == 4);
    CHECK(events[0].substr(9) == std::string("\x10\x00\x1a\x0d", 4) + "brain.Event:2");
    CHECK(events[1].substr(9) == "\x10\xac\x02\x3a\x02\x08\x01");
    CHECK(events[2].substr(9) == std::string("\x10\xac\x02\x2a\x24", 5) +
                                     std::string("\x0a\x11\x0a\x0atrain/loss\x15\x00\x00\x00\x3f", 19) +
                                     std::string("\x0a\x0f\x0a\x08test/auc\x15\x00\x00\x40\x3f", 17));
    // tensorflow.Summary.Value: tag, a string tensor without dimensions, and the plugin that shows it.
    CHECK(events[3].substr(9) == std::string("\x10\xac\x02\x2a\x1e\x0a\x1c\x0a\x03run", 12) +
                                     std::string("\x42\x0b\x08\x07\x12\x00\x42\x05which", 13) +
                                     std::string("\x4a\x08\x0a\x06\x0a\x04text", 10));
  }
}

TEST_SUITE("signals") {
  TEST_CASE("the first signal is noted, the second one kills") {
    {
      const StopSignals signals;
      CHECK(StopSignals::received() == 0);
      raise(SIGTERM);
      CHECK(StopSignals::received() == SIGTERM);
      CHECK(StopSignals::exit_code() == 143);
    }
    const pid_t child = ::fork();
    if (child == 0) {
      for (const int signal : {SIGSEGV, SIGABRT}) std::signal(signal, SIG_DFL);
      const StopSignals signals;
      raise(SIGINT);
      if (StopSignals::exit_code() != 130) ::_exit(1);
      raise(SIGINT);
      ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGINT);
  }
}
