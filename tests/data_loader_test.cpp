// Packed forms are made once and never half; loaders give the same batches whatever the threads.
#include "mixrec/core/error.h"
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/loader.h"
#include "mixrec/data/packing/packed_digests.h"
#include "mixrec/data/packing/packed_files.h"
#include "mixrec/tests/data_files.h"
#include "mixrec/tests/skip.h"

#include <algorithm>
#include <csignal>
#include <doctest/doctest.h>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <sched.h>
#include <set>
#include <string>
#include <sys/wait.h>
#include <thread>

using namespace mixrec;
using mixrec::test::DataFolder;
using mixrec::test::message_of;

namespace {

const std::string kSchema = R"({
  "log": {"files": "log.csv", "user": "user", "item": "item", "time": "time"},
  "tasks": {"label": "label == 1"},
  "features": {"user": ["user"], "item": ["item"], "context": ["place"]},
  "histories": {"h": {"length": 5, "from": [{"log": true, "signals": {"label": "label"}}], "features": ["item"],
                      "gap": true}},
  "split": {"by": "date", "test_days": 1, "validation_days": 1}
})";

std::string random_log(int rows, int users = 40) {
  std::mt19937_64 random(7);
  std::string text = "user,item,time,place,label\n";
  for (int i = 0; i < rows; ++i)
    text += std::to_string(random() % users) + "," + std::to_string(random() % 90) + "," +
            std::to_string(86'400LL * 8 * i / rows) + "," + std::to_string(random() % 4) + "," +
            std::to_string(random() % 3 == 0) + "\n";
  return text;
}

// Everything a model sees of a batch, as numbers.
std::vector<int64_t> contents(const RequestBatch& batch) {
  std::vector<int64_t> all{batch.requests, batch.candidates};
  const auto add = [&](const Tensor& tensor) {
    if (!tensor.defined()) return;
    const auto values = tensor.to_vector<int64_t>();
    all.insert(all.end(), values.begin(), values.end());
  };
  add(batch.offsets), add(batch.labels), add(batch.weights);
  for (const auto& column : batch.features) add(column.ids), add(column.offsets), add(column.values);
  for (const auto& history : batch.histories) {
    add(history.offsets);
    for (const auto& column : history.columns) add(column.ids);
  }
  all.insert(all.end(), batch.row.begin(), batch.row.end());
  return all;
}

std::vector<std::vector<int64_t>> epoch(Loader& loader) {
  std::vector<std::vector<int64_t>> all;
  while (const auto batch = loader.next()) all.push_back(contents(*batch));
  return all;
}

Dataset open(const DataFolder& folder, const std::string& schema = kSchema) {
  return Dataset::open(parse_schema(schema), folder.path());
}

}  // namespace

TEST_SUITE("data loader") {
  TEST_CASE("batches depend on the seed and the epoch, not on the workers; any position resumes") {
    DataFolder folder;
    folder.write("log.csv", random_log(3000));
    const Dataset data = open(folder);
    for (const Shuffle shuffle : {Shuffle::requests, Shuffle::rows, Shuffle::none}) {
      Loader alone(data, Split::train, {.batch_size = 64, .shuffle = shuffle, .seed = 3, .workers = 0});
      const auto first = epoch(alone);
      CHECK(static_cast<int64_t>(first.size()) == alone.batches());
      for (const int workers : {1, 3}) {
        Loader many(data, Split::train,
                    {.batch_size = 64, .shuffle = shuffle, .seed = 3, .workers = workers});
        CHECK(epoch(many) == first);
        many.start(0, 7);
        CHECK(many.position() == LoaderPosition{0, 7});
        CHECK(epoch(many) == std::vector(first.begin() + 7, first.end()));
      }
      alone.start(1);
      CHECK((epoch(alone) == first) == (shuffle == Shuffle::none));
      Loader other(data, Split::train, {.batch_size = 64, .shuffle = shuffle, .seed = 4, .workers = 0});
      CHECK((epoch(other) == first) == (shuffle == Shuffle::none));
    }
  }

  TEST_CASE("an epoch holds every row once; requests stay together; the last batch is kept") {
    DataFolder folder;
    folder.write("log.csv", random_log(3000));
    const Dataset data = open(folder);
    for (const Shuffle shuffle : {Shuffle::requests, Shuffle::rows}) {
      Loader loader(data, Split::train,
                    {.batch_size = 64, .event_cap = 200, .shuffle = shuffle, .training = true});
      std::vector<int64_t> rows;
      std::set<std::pair<int64_t, int64_t>> requests;
      int64_t request_count = 0;
      while (const auto batch = loader.next()) {
        batch->validate(data.spec());
        CHECK(batch->candidates <= 64);
        if (batch->requests > 1) CHECK(batch->histories[0].offsets.data<int64_t>()[batch->requests] <= 200);
        if (shuffle == Shuffle::rows) CHECK(batch->requests == batch->candidates);
        rows.insert(rows.end(), batch->row.begin(), batch->row.end());
        request_count += batch->requests;
        for (size_t c = 0; c < batch->row.size(); ++c)
          requests.emplace(batch->user[c], 8 * batch->row[c] / 3000);
      }
      std::sort(rows.begin(), rows.end());
      std::vector<int64_t> expected(static_cast<size_t>(data.stats(Split::train).rows));
      for (size_t i = 0; i < expected.size(); ++i) expected[i] = static_cast<int64_t>(i);
      CHECK(rows == expected);
      // One request a user and day, wherever its batch is.
      if (shuffle == Shuffle::requests) CHECK(request_count == static_cast<int64_t>(requests.size()));
    }
  }

  TEST_CASE(
      "a share of the optimiser's cells reads as unknown, another one each epoch; others are left alone") {
    DataFolder folder;
    folder.write("log.csv", random_log(3000));
    std::string schema = kSchema;
    schema.replace(schema.find("\"item\": [\"item\"]"), 16,
                   "\"item\": [{\"column\": \"item\", \"unknown_rate\": 0.2}]");
    const Dataset data = open(folder, schema);
    const auto unknown = [&](Loader& loader, bool events) {
      std::vector<int64_t> cells;
      while (const auto batch = loader.next()) {
        const auto ids =
            (events ? batch->histories[0].columns[0] : batch->features[1]).ids.to_vector<int64_t>();
        for (const int64_t id : ids) cells.push_back(id == kUnknownRow);
      }
      return cells;
    };
    Loader train(data, Split::train, {.batch_size = 64, .shuffle = Shuffle::none, .training = true}),
        whole(data, Split::train), test(data, Split::test);
    const auto first = unknown(train, false);
    const auto share = [](const std::vector<int64_t>& cells) {
      return static_cast<double>(std::count(cells.begin(), cells.end(), 1)) /
             static_cast<double>(cells.size());
    };
    CHECK(share(first) == doctest::Approx(0.2).epsilon(0.15));
    train.start(0);
    CHECK(share(unknown(train, true)) == doctest::Approx(0.2).epsilon(0.15));
    train.start(0);
    CHECK(unknown(train, false) == first);
    train.start(1);
    CHECK(unknown(train, false) != first);
    CHECK(share(unknown(whole, false)) == 0);
    CHECK(share(unknown(test, false)) == 0);
  }

  TEST_CASE("ranks share an epoch without overlap") {
    DataFolder folder;
    folder.write("log.csv", random_log(1000));
    const Dataset data = open(folder);
    Loader whole(data, Split::refit, {.batch_size = 50});
    const auto all = epoch(whole);
    std::vector<std::vector<int64_t>> dealt(all.size() + 3);
    for (int64_t rank = 0; rank < 3; ++rank) {
      Loader loader(data, Split::refit, {.batch_size = 50, .rank = rank, .world = 3});
      const auto part = epoch(loader);
      CHECK(part.size() == (all.size() + 2) / 3);
      for (size_t b = 0; b < part.size(); ++b) dealt[3 * b + static_cast<size_t>(rank)] = part[b];
    }
    CHECK(std::equal(all.begin(), all.end(), dealt.begin()));
  }

  TEST_CASE("an expanded batch holds the same candidates") {
    DataFolder folder;
    folder.write("log.csv", random_log(1000, 5));
    const Dataset data = open(folder);
    Loader together(data, Split::test, {.batch_size = 10000, .shuffle = Shuffle::none});
    Loader order(data, Split::test, {.batch_size = 10000, .shuffle = Shuffle::none});
    const auto batch = together.next();
    REQUIRE(batch->requests < batch->candidates);
    const RequestBatch expanded = batch->expanded();
    expanded.validate(data.spec());
    CHECK(expanded.requests == batch->candidates);
    const auto offsets = batch->offsets.to_vector<int64_t>();
    for (int64_t r = 0; r < batch->requests; ++r)
      for (int64_t c = offsets[r]; c < offsets[r + 1]; ++c) {
        const auto cut = [](const HistoryBatch& history, int64_t request) {
          const auto all = history.columns[0].ids.to_vector<int64_t>(),
                     at = history.offsets.to_vector<int64_t>();
          return std::vector(all.begin() + at[request], all.begin() + at[request + 1]);
        };
        CHECK(cut(expanded.histories[0], c) == cut(batch->histories[0], r));
        CHECK(expanded.features[0].ids.data<int64_t>()[c] == batch->features[0].ids.data<int64_t>()[r]);
      }
  }

  TEST_CASE("a batch built by hand is checked: id, offsets, shapes") {
    DataFolder folder;
    folder.write("log.csv", random_log(1000));
    const Dataset data = open(folder);
    Loader loader(data, Split::train, {.batch_size = 8});
    auto batch = *loader.next();
    batch.validate(data.spec());
    const int64_t rows = data.spec().features[1].rows;
    batch.features[1].ids.data<int64_t>()[2] = rows;
    CHECK(message_of([&] { batch.validate(data.spec()); })
              .starts_with(concat_message("feature 'item': id ", rows, " at row 2 is outside its table of ",
                                          rows, " rows")));
    batch.features[1].ids.data<int64_t>()[2] = 0;
    batch.offsets.data<int64_t>()[1] = 99;
    CHECK(message_of([&] { batch.validate(data.spec()); }).find("candidate offsets") == 0);
  }

  TEST_CASE("a packed form is made once, and again when a source or the schema changes") {
    DataFolder folder;
    folder.write("log.csv", random_log(500));
    std::string said;
    PrepareOptions options;
    options.report = [&](const std::string& line) { said += line + "\n"; };
    const auto prepared = [&](const std::string& schema) {
      said.clear();
      Dataset::open(parse_schema(schema), folder.path(), options);
      return said.find("prepared") != std::string::npos;
    };
    CHECK(prepared(kSchema));
    CHECK(!prepared(kSchema));
    folder.write("log.csv", random_log(500));  // a new time, the same content
    CHECK(!prepared(kSchema));
    std::string longer = kSchema;
    longer.replace(longer.find("\"length\": 5"), 11, "\"length\": 9");
    CHECK(!prepared(longer));  // a length is a choice of the model
    std::string other = kSchema;
    other.replace(other.find("\"place\""), 7, "{\"column\": \"place\", \"hash\": 9}");
    CHECK(prepared(other));
    CHECK(!prepared(kSchema));
    folder.write("log.csv", random_log(501));
    CHECK(prepared(kSchema));
    CHECK(said.find("the data has changed: log.csv: ") != std::string::npos);
  }

  TEST_CASE("a damaged packed form and a full disk are said to be that") {
    DataFolder folder;
    folder.write("log.csv", random_log(500));
    const std::string packed = open(folder).packed_folder();
    std::filesystem::resize_file(packed + "/rows.item", 400);
    const std::string damaged = message_of([&] { open(folder); });
    INFO(damaged);
    CHECK(damaged.find("rows.item is damaged: it has 400 bytes where 2000 were written") !=
          std::string::npos);
    FileWriter full("/dev/full");
    full.append(1);
    CHECK(message_of([&] {
            full.close(false);
          }).starts_with("cannot write /dev/full: No space left on device"));
  }

  TEST_CASE("a manifest whose lists are not the schema's is refused, with a digest that fits it too") {
    DataFolder folder;
    folder.write("log.csv", random_log(500));
    const std::string packed = open(folder).packed_folder(), path = packed + "/manifest.json";
    const auto written = nlohmann::json::parse(read_text_file(path));
    const auto write_digests = [&] {
      std::filesystem::remove(packed + "/digests");  // it does not vouch for itself
      write_packed_digests(packed);
    };
    for (const char* list : {"/feature_rows", "/signal_rows", "/signal_rows/0", "/event_counts",
                             "/splits/0/tasks", "/splits/2/tasks"}) {
      CAPTURE(list);
      const nlohmann::json::json_pointer place(list);
      for (const bool longer : {false, true}) {
        nlohmann::json edited = written;
        auto& entries = edited.at(place);
        REQUIRE(!entries.empty());
        longer ? entries.push_back(entries.back()) : entries.erase(entries.size() - 1);
        write_file_atomically(path, edited.dump(1) + "\n");
        write_digests();
        const std::string said = message_of([&] { open(folder); });
        INFO(said);
        CHECK(said.starts_with(path + " is damaged: "));
        CHECK(said.find("where the schema has") != std::string::npos);
      }
    }
    nlohmann::json edited = written;
    edited.at("feature_rows").at(0) = edited.at("feature_rows").at(0).get<int64_t>() - 1;
    write_file_atomically(path, edited.dump(1) + "\n");
    write_digests();
    CHECK(message_of([&] { open(folder); }).find("its encoders ") != std::string::npos);
    write_file_atomically(path, written.dump(1) + "\n");
    write_digests();
    CHECK(open(folder).stats(Split::all).rows == 500);
  }

  TEST_CASE("processes of two containers prepare one folder: nobody takes the other for dead") {
    DataFolder folder;
    folder.write("log.csv", random_log(20000, 5000));
    const Schema schema = parse_schema(kSchema);
    std::filesystem::create_directories(folder.path(".mixrec"));
    // A process that is number 1 of its own numbering, as in a container, and does `work` there.
    const auto contained = [](const std::function<void()>& work) {
      const pid_t child = ::fork();
      if (child != 0) return child;
      if (::unshare(CLONE_NEWPID) != 0) ::_exit(77);
      const pid_t first = ::fork();
      if (first == 0) {
        if (::getpid() != 1) ::_exit(3);
        work();
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(first, &status, 0);
      ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 4);
    };
    const auto end = [](pid_t child) {
      int status = 0;
      ::waitpid(child, &status, 0);
      return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    };
    if (end(contained([] {})) == 77)
      return test::skip("preparing in two containers: unshare(CLONE_NEWPID) is not allowed");
    // One writes and waits, the other clears up and prepares meanwhile.
    int ready[2], go[2];
    REQUIRE((::pipe(ready) == 0 && ::pipe(go) == 0));
    char byte = 0;
    const pid_t writer = contained([&] {
      AtomicFolder out(folder.path(".mixrec/packed-0-0"));
      char signal = 1;
      if (::write(ready[1], &signal, 1) != 1 || ::read(go[0], &signal, 1) != 1) ::_exit(5);
      if (!std::filesystem::exists(out.folder())) ::_exit(6);
      out.commit();
    });
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    const auto opens = [&] { prepare(schema, folder.path()); };
    CHECK(end(contained(opens)) == 0);
    REQUIRE(::write(go[1], &byte, 1) == 1);
    CHECK(end(writer) == 0);
    CHECK(std::filesystem::exists(folder.path(".mixrec/packed-0-0")));
    for (const int fd : {ready[0], ready[1], go[0], go[1]}) ::close(fd);
    // Both prepare the same at once.
    std::filesystem::remove_all(folder.path(".mixrec"));
    const pid_t one = contained(opens), two = contained(opens);
    CHECK(end(one) == 0);
    CHECK(end(two) == 0);
    CHECK(open(folder).stats(Split::all).rows == 20000);
    for (const auto& entry : std::filesystem::directory_iterator(folder.path(".mixrec")))
      CHECK(entry.path().filename().string().find(".tmp-") == std::string::npos);
  }

  TEST_CASE("a prepare that is killed leaves no packed form, and the next one cleans up") {
    DataFolder folder;
    folder.write("log.csv", random_log(60000, 5000));
    const Schema schema = parse_schema(kSchema);
    for (const int milliseconds : {1, 10, 30}) {
      const pid_t child = ::fork();
      if (child == 0) {
        prepare(schema, folder.path());
        ::_exit(0);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
      if (!std::filesystem::exists(folder.path(".mixrec"))) continue;
      for (const auto& entry : std::filesystem::directory_iterator(folder.path(".mixrec")))
        if (entry.path().filename().string().find(".tmp-") == std::string::npos)
          CHECK(std::filesystem::exists(entry.path() / "manifest.json"));
    }
    const Dataset data = open(folder);
    CHECK(data.manifest().rows == 60000);
    for (const auto& entry : std::filesystem::directory_iterator(folder.path(".mixrec")))
      CHECK(entry.path().filename().string().find(".tmp-") == std::string::npos);
  }

  TEST_CASE("preparing takes memory for its dictionaries and one bucket, not for the log") {
    const auto anonymous = [] {
      std::ifstream status("/proc/self/status");
      for (std::string line; std::getline(status, line);)
        if (line.starts_with("RssAnon:")) return std::stol(line.substr(8)) / 1024;
      return -1L;
    };
    if (anonymous() < 0) return test::skip("memory of prepare: no RssAnon in /proc/self/status");
    DataFolder folder;
    folder.write("log.csv", random_log(400000, 20000));
    const long before = anonymous();
    const Dataset data = open(folder);
    Loader loader(data, Split::train, {.workers = 1});
    while (loader.next()) {
    }
    CHECK(anonymous() - before < 64);
  }
}
