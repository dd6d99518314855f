// Threads that fail or cannot start, and what is kept between their calls.
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/data/loader.h"
#include "mixrec/data/prefetcher.h"
#include "mixrec/tests/data_files.h"
#include "mixrec/tests/skip.h"
#include "mixrec/train/serve/idle_pool.h"

#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

using namespace mixrec;
using mixrec::test::DataFolder;
using mixrec::test::message_of;
using mixrec::test::skip;

namespace {

constexpr const char* kChild = "MIXREC_TEST_FEW_THREADS";

// Runs one test case of this program with little address space, so that few threads can start; its exit code.
int run_with_little_memory(const std::string& test_case) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  const std::string command = std::string("ulimit -v 2000000; ") + kChild + "=1 '" + program +
                              "' --minimal=true '--test-case=" + test_case + "' > /dev/null 2>&1";
  return std::system(("sh -c \"" + command + "\"").c_str());
}

const std::string kSchema = R"({
  "log": {"files": "log.csv", "user": "user", "item": "item", "time": "time"},
  "tasks": {"label": "label == 1"},
  "features": {"user": ["user"], "item": ["item"], "context": [{"name": "genres", "column": "genres", "list": "|"}]},
  "split": {"by": "date", "test_days": 1, "validation_days": 1}
})";

Dataset small_data(const DataFolder& folder) {
  std::string log = "user,item,time,label,genres\n";
  for (int i = 0; i < 200; ++i)
    log += std::to_string(i % 7) + "," + std::to_string(i % 11) + "," + std::to_string(86'400 * 8 * i / 200) +
           "," + std::to_string(i % 3 == 0) + ",a|b" + std::to_string(i % 5) + "\n";
  folder.write("log.csv", log);
  folder.write("schema.json", kSchema);
  return Dataset::open(folder.path());
}

}  // namespace

TEST_CASE("threads: loops whose threads cannot start, in a process of its own") {
  if (!std::getenv(kChild)) return;
  const auto loop = [] { parallel_for(1 << 20, 1 << 20, [](int64_t, int64_t) {}); };
  set_num_threads(4000);
  for (int again = 0; again < 2; ++again) {
    const std::string message = message_of(loop);
    CAPTURE(message);
    CHECK(message.find(" of 4001 threads can be started") != std::string::npos);
    CHECK(message.find("OMP_NUM_THREADS") != std::string::npos);
  }
  set_num_threads(2);
  CHECK(message_of(loop).empty());
}

TEST_CASE("threads: loaders whose threads cannot start, in a process of its own") {
  if (!std::getenv(kChild)) return;
  const DataFolder folder;
  const Dataset data = small_data(folder);
  const std::string message = message_of([&] { Loader(data, Split::train, {.workers = 4000}); });
  CAPTURE(message);
  CHECK(message.find(" of data.workers = 4000 threads can be started") != std::string::npos);
  Loader few(data, Split::train, {.workers = 2});
  CHECK(few.next().has_value());
}

TEST_CASE("threads: those that cannot start are an error, after which fewer can") {
#ifdef __SANITIZE_ADDRESS__
  return skip(
      "threads that cannot start: the address sanitizer needs the address space that the test takes away");
#endif
  CHECK(run_with_little_memory("threads: loops whose threads cannot start, in a process of its own") == 0);
  CHECK(run_with_little_memory("threads: loaders whose threads cannot start, in a process of its own") == 0);
}

TEST_CASE("threads: a batch that cannot be made is an error in its place, and on every later call") {
  for (const int workers : {0, 1, 3}) {
    CAPTURE(workers);
    const DataFolder folder;
    const Dataset data = small_data(folder);
    // Items that are not there: what a damaged file may say.
    const std::string damaged = data.packed_folder() + "/rows.item";
    const std::vector<uint32_t> items(std::filesystem::file_size(damaged) / sizeof(uint32_t), 0x7ffffff0);
    std::fstream(damaged, std::ios::in | std::ios::out | std::ios::binary)
        .write(reinterpret_cast<const char*>(items.data()),
               static_cast<std::streamsize>(items.size() * sizeof(uint32_t)));
    const LoaderOptions options{.batch_size = 16, .workers = workers};
    Loader loader(data, Split::train, options);
    const std::string first = message_of([&] { loader.next(); });
    CAPTURE(first);
    CHECK(!first.empty());
    for (int i = 0; i < 12; ++i) CHECK(message_of([&] { loader.next(); }) == first);
    loader.start(0);  // begins anew, and fails anew
    CHECK(message_of([&] { loader.next(); }) == first);
    Prefetcher ahead(Loader(data, Split::train, options), kCpu);
    for (int i = 0; i < 12; ++i) CHECK(message_of([&] { ahead.next(); }) == first);
  }
}

TEST_CASE("threads: a loader that could not start gives its error and waits for nobody") {
  const DataFolder folder;
  const Dataset data = small_data(folder);
  for (const int workers : {0, 2}) {
    Loader loader(data, Split::train, {.batch_size = 16, .workers = workers});
    const std::string wrong = message_of([&] { loader.start(0, 1000); });
    CHECK(wrong.find("has no batch 1000") != std::string::npos);
    CHECK(message_of([&] { loader.next(); }) == wrong);
    CHECK(message_of([&] { loader.next(); }) == wrong);
    loader.start(0, 1);
    CHECK(loader.next().has_value());
  }
}

TEST_CASE("threads: a pool keeps what was used last, whatever its kind") {
  struct Thing {
    int number;
  };
  IdlePool<std::vector<int>, Thing> pool(2);
  const auto give = [&](std::vector<int> kind, int number) {
    pool.give_back(kind, std::make_unique<Thing>(Thing{number}));
  };
  give({1}, 1), give({9}, 9);
  // Kind 1 is the smallest but was used last.
  give({1}, pool.take({1})->number);
  give({5}, 5);
  CHECK(pool.size() == 2);
  CHECK(pool.take({9}) == nullptr);
  CHECK(pool.take({1})->number == 1);
  CHECK(pool.take({5})->number == 5);
  CHECK(pool.take({5}) == nullptr);
  // Two of a kind: the newer one is taken, the older one dropped.
  give({3}, 30), give({3}, 31), give({2}, 2);
  CHECK(pool.take({3})->number == 31);
  CHECK(pool.take({3}) == nullptr);
  IdlePool<int, Thing> none(0);
  none.give_back(1, std::make_unique<Thing>(Thing{1}));
  CHECK(none.take(1) == nullptr);
}
