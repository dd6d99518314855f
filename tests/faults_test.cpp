// Damage to what lies on the disk, and systems that refuse what was asked of them.
#include "mixrec/core/error.h"
#include "mixrec/core/hash.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/data/loader.h"
#include "mixrec/data/packing/packed_files.h"
#include "mixrec/data/simulate/simulate.h"
#include "mixrec/data/source_files.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/temporary_folder.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/signals.h"
#include "mixrec/train/train_state.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <filesystem>
#include <string>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

using namespace mixrec;
using test::message_of;
using test::read_file;
using test::TemporaryFolder;
using test::write_file;

namespace {

void check_has(const std::string& message, const std::string& part) {
  CAPTURE(message);
  CHECK(message.find(part) != std::string::npos);
}

}  // namespace

TEST_SUITE("faults") {
  TEST_CASE("XXH64 gives the values of its specification, however the bytes are cut") {
    CHECK(hash_digits(hash_bytes("", 0)) == "ef46db3751d8e999");
    CHECK(hash_digits(hash_bytes("a", 1)) == "d24ec4f1a98c6e5b");
    CHECK(hash_digits(hash_bytes("abc", 3)) == "44bc2cf5ad770999");
    const std::string text = "Nobody inspects the spammish repetition";
    CHECK(hash_digits(hash_bytes(text.data(), text.size())) == "fbcea83c8a378bf1");
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      Hasher hasher;
      hasher.update(text.substr(0, cut));
      hasher.update(text.substr(cut));
      CHECK(hash_digits(hasher.digest()) == "fbcea83c8a378bf1");
    }
  }

  TEST_CASE("a training state that no run can have reached is refused by the number's name") {
    TrainState good;
    good.step = 10, good.best_step = 5, good.epoch = 1;
    const auto error = [&](const std::string& name, const std::string& value) {
      Scalars scalars = good.to_scalars();
      scalars.at(name) = value;
      return message_of([&] { TrainState::from_scalars(scalars, "c.safetensors"); });
    };
    CHECK(error("step", "10") == "");
    for (const auto& [name, value] :
         std::vector<std::pair<std::string, std::string>>{{"phase", "7"},
                                                          {"phase", "-1"},
                                                          {"phase", "1"},
                                                          {"step", " 5"},
                                                          {"step", "-5"},
                                                          {"step", "4"},
                                                          {"step", "1e3"},
                                                          {"epoch", "-1"},
                                                          {"batch", "99999999999999999999"},
                                                          {"rng_offset", "-1"},
                                                          {"best_score", "nan"},
                                                          {"best_score", "inf"},
                                                          {"loss_sum", "-nan"},
                                                          {"loss_steps", "11"},
                                                          {"samples", "5 "},
                                                          {"train_seconds", "-1"}}) {
      const std::string message = error(name, value);
      CAPTURE(name);
      CAPTURE(value);
      check_has(message, "c.safetensors");
      check_has(message, name == "step" && value == "4" ? "best_step" : name);
    }
    good.step = 0, good.best_step = 0;
    check_has(error("phase", "2"), "before a first step");
  }

  TEST_CASE("an index that another file names is checked, and the file is named") {
    const TemporaryFolder folder;
    write_array<uint32_t>(folder / "rows.item", {1, 2, 3});
    const MappedArray<uint32_t> rows(folder / "rows.item");
    CHECK(rows.at(2) == 3);
    const std::string error = message_of([&] { rows.at(0x7fffffff); });
    check_has(error, "entry 2147483647");
    check_has(error, "rows.item, which has 3");
    check_has(message_of([&] { rows.at(3); }), "entry 3");
    write_array<float>(folder / "empty", {});
    const MappedArray<float> none(folder / "empty");
    check_has(message_of([&] { none.at(0); }), "entry 0 of an empty file");
  }

  TEST_CASE("a mapped file is known by its addresses while it is mapped") {
    const TemporaryFolder folder;
    write_array<uint32_t>(folder / "a", {1, 2, 3});
    const void* address = nullptr;
    {
      const MappedArray<uint32_t> mapped(folder / "a");
      address = &mapped[2];
      CHECK(std::string(mapped_file_at(address)) == folder / "a");
      MappedArray<uint32_t> moved;
      moved = MappedArray<uint32_t>(folder / "a");
      CHECK(mapped_file_at(&moved[0]) != nullptr);
    }
    CHECK(mapped_file_at(address) == nullptr);
    CHECK(mapped_file_at(&address) == nullptr);
  }

  TEST_CASE("one changed byte in any file of a packed form is refused, and the file is named") {
    const TemporaryFolder folder;
    const Config config = test::small_config(test::write_small_data(folder, "log"));
    const std::string packed = open_data(config.data).packed_folder();
    int files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(packed)) {
      if (!entry.is_regular_file()) continue;
      const std::string path = entry.path(), whole = read_file(path);
      CAPTURE(path);
      const auto refused = [&](const std::string& content) {
        write_file(path, content);
        const std::string error = message_of([&] { open_data(config.data); });
        CAPTURE(error);
        CHECK(error.find("damaged") != std::string::npos);
        // A line of `digests` that was changed speaks against the file that it names.
        if (entry.path().filename() != "digests") CHECK(error.find(path) != std::string::npos);
      };
      std::string flipped = whole;
      if (!whole.empty()) flipped[whole.size() / 2] = static_cast<char>(flipped[whole.size() / 2] ^ 4);
      if (!whole.empty()) refused(flipped);
      if (entry.path().filename() != "digests") refused(whole + "x");
      write_file(path, whole);
      ++files;
    }
    CHECK(files > 15);
    CHECK(message_of([&] { open_data(config.data); }) == "");
    write_file(packed + "/rows.more", "x");
    check_has(message_of([&] { open_data(config.data); }), "rows.more has no digest");
    std::filesystem::remove(packed + "/rows.more");
    std::filesystem::remove(packed + "/rows.item");
    check_has(message_of([&] { open_data(config.data); }), "rows.item, which digests names, is missing");
  }

  TEST_CASE("a file that is cut while it is mapped ends the command line with its name") {
    const TemporaryFolder folder;
    write_array<uint8_t>(folder / "rows.item", std::vector<uint8_t>(100'000, 1));
    const std::string said = folder / "stderr";
    const pid_t child = ::fork();
    if (child == 0) {
      const int out = ::open(said.c_str(), O_WRONLY | O_CREAT, 0644);
      ::dup2(out, STDERR_FILENO);
      const LostFileSignals signals;
      const MappedArray<uint8_t> rows(folder / "rows.item");
      if (::truncate((folder / "rows.item").c_str(), 0) != 0) ::_exit(3);
      volatile uint8_t value = rows[50'000];
      ::_exit(value == 1 ? 4 : 5);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 1);
    check_has(read_file(said), "mixrec: cannot read " + (folder / "rows.item") + ": it was cut");
  }

  TEST_CASE("a schema's files are regular files in the data folder, unless others are allowed") {
    const TemporaryFolder folder;
    std::filesystem::create_directories(folder / "data/deep");
    write_file(folder / "data/log.csv", "x");
    write_file(folder / "data/deep/more.csv", "x");
    write_file(folder / "other.csv", "x");
    const auto error = [&](const std::string& name, bool outside = false) {
      return message_of([&] { check_source_files(folder / "data", {name}, outside); });
    };
    CHECK(error("deep/more.csv") == "");
    CHECK(error("deep/../log.csv") == "");
    CHECK(error("absent.csv") == "");
    std::filesystem::create_symlink("log.csv", folder / "data/link");
    CHECK(error("link") == "");
    check_has(error("../other.csv"), "'../other.csv' lies outside");
    check_has(error("../other.csv"), "data.outside");
    check_has(error("deep/../../data/../other.csv"), "lies outside");
    check_has(error(folder / "other.csv"), "lies outside");
    check_has(error("../data-else"), "lies outside");
    std::filesystem::create_symlink("../other.csv", folder / "data/away");
    std::filesystem::create_symlink("..", folder / "data/up");
    check_has(error("away"), "it is a link to");
    check_has(error("up/other.csv"), "it is a link to");
    REQUIRE(::mkfifo((folder / "data/pipe").c_str(), 0600) == 0);
    check_has(error("pipe"), "is a FIFO, a regular file was expected");
    check_has(error("deep"), "is a folder");
    CHECK(error("../other.csv", true) == "");
    CHECK(error("away", true) == "");
    const auto twice = [&](const std::string& first, const std::string& second) {
      return message_of([&] { check_source_files(folder / "data", {first, "deep/more.csv", second}, true); });
    };
    std::filesystem::create_hard_link(folder / "data/log.csv", folder / "data/hard");
    for (const char* other : {"./log.csv", "deep/../log.csv", "link", "hard", "up/data/log.csv"})
      check_has(twice("log.csv", other), "'log.csv' and '" + std::string(other) + "' are the same file");
    CHECK(twice("log.csv", "away") == "");
    CHECK(twice("log.csv", "absent.csv") == "");
    check_has(error("/dev/null", true), "is a device");
    check_has(error("pipe", true), "is a FIFO");
  }

  TEST_CASE("a simulated log overwrites nothing of a user's") {
    const TemporaryFolder folder;
    SimulateOptions options;
    options.out = folder / "log";
    options.rows = 200, options.items = 50, options.users = 20, options.categories = 4;
    std::filesystem::create_directories(options.out);
    write_file(options.out + "/log.csv", "mine");
    check_has(message_of([&] { simulate(options); }), "is not empty and holds no simulated log");
    options.again = true;
    check_has(message_of([&] { simulate(options); }), "is not empty and holds no simulated log");
    CHECK(read_file(options.out + "/log.csv") == "mine");
    write_file(folder / "file", "mine");
    options.out = folder / "file";
    check_has(message_of([&] { simulate(options); }), "is a file; the log needs a folder");

    options.out = folder / "fresh";
    CHECK_NOTHROW(simulate(options));
    options.again = false, options.seed = 2;
    const std::string before = read_file(options.out + "/log.csv");
    check_has(message_of([&] { simulate(options); }), "replace it with --again");
    CHECK(read_file(options.out + "/log.csv") == before);
    options.again = true;
    CHECK_NOTHROW(simulate(options));
    CHECK(read_file(options.out + "/log.csv") != before);
    options.out = folder / "huge", options.rows = int64_t{1} << 60;
    check_has(message_of([&] { simulate(options); }), "rows must be at most");
    CHECK_FALSE(std::filesystem::exists(options.out));
  }

  TEST_CASE("numbers of threads that no machine has are refused") {
    const int before = num_threads();
    check_has(message_of([&] { set_num_threads(5000); }), "from 1 to 4096, got 5000");
    check_has(message_of([&] { set_num_threads(-1530494976); }), "got -1530494976");
    CHECK(num_threads() == before);
  }

  TEST_CASE("bytes that are no text, in names of folders") {
    const TemporaryFolder folder;
    const auto missing =
        test::run_mixrec({"train", "--data", folder / "d\xff", "--out", folder / "r"}, folder);
    CHECK(missing.code == 1);
    check_has(missing.err, "d\\xFF");
    const std::string data = test::write_small_data(folder, "log");
    const std::string run = folder / "r\xff";
    const auto trained = test::run_mixrec({"train", "--data", data, "--out", run, "--set", "model.name=mlp",
                                           "--set", "model.hidden=4", "--set", "train.device=cpu"},
                                          folder);
    REQUIRE(trained.code == 0);
    const auto evaluated = test::run_mixrec({"eval", run}, folder);
    CHECK(evaluated.code == 0);
    check_has(evaluated.out, "r\\\\xFF");
  }

  TEST_CASE("a task named twice, and folders where files are due") {
    const TemporaryFolder folder;
    const std::string data = test::write_small_data(folder, "log");
    Config config = test::small_config(data);
    config.data.tasks = {"liked", "shared", "liked"};
    check_has(message_of([&] { open_data(config.data); }), "the task 'liked' is named twice");
    config.data.tasks = {};
    std::filesystem::remove(data + "/schema.json");
    std::filesystem::create_directories(data + "/schema.json");
    check_has(message_of([&] { open_data(config.data); }), "is a folder");
    const auto scored = test::run_mixrec({"eval", data}, folder);
    check_has(scored.err, "is no run folder: it holds no config.json");
  }
}
