// A run and its data: equal rows get equal numbers wherever they lie, and whatever does not belong to the run is refused.
#include "mixrec/core/files/atomic_file.h"
#include "mixrec/data/dataset.h"
#include "mixrec/data/encoders/checked_folder.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/load_model.h"
#include "mixrec/train/run_data.h"
#include "mixrec/train/serve/scorer.h"
#include "mixrec/train/verify.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <filesystem>
#include <map>
#include <sstream>
#include <sys/stat.h>
#include <vector>

using namespace mixrec;
using namespace mixrec::test;
namespace fs = std::filesystem;

namespace {

// A folder for packed forms of data that is only looked at.
struct Cache {
  explicit Cache(const TemporaryFolder& folder) { ::setenv("XDG_CACHE_HOME", (folder / "cache").c_str(), 1); }
  ~Cache() { ::unsetenv("XDG_CACHE_HOME"); }
};

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Probabilities by the row's own cells, in the text that was written.
std::map<std::string, std::string> predicted(const std::string& run, const std::string& data,
                                             const TemporaryFolder& folder) {
  const std::string out = folder / "p.csv";
  const ChildResult result =
      run_mixrec({"predict", run, "--data", data, "--split", "test", "--out", out}, folder);
  CAPTURE(result.err);
  REQUIRE(result.code == 0);
  std::map<std::string, std::string> all;
  for (const std::string& line : lines_of(read_file(out))) {
    const size_t cells = line.find(',') + 1,
                 numbers = line.find(',', line.find(',', line.find(',', cells) + 1) + 1);
    all[line.substr(cells, numbers - cells)] = line.substr(numbers);
  }
  return all;
}

struct Trained {
  explicit Trained(const std::string& model = "mlp") : cache(folder), data(write_small_data(folder)) {
    train(run, model, 1);
  }
  void train(const std::string& out, const std::string& model, int seed) {
    const ChildResult result =
        run_mixrec({"train", "--quiet", "--data", data, "--out", out, "--seed", std::to_string(seed), "--set",
                    "model.name=" + model, "--set", "data.batch_size=64"},
                   folder);
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
  }
  // A copy of the log with other lines, and what a command says of it.
  std::string copy(const std::string& name, const std::vector<std::string>& lines,
                   const std::string& file = "log.csv") {
    fs::create_directories(folder / name);
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    write_file(folder / name + "/" + file, text);
    std::string schema = small_schema_text();
    schema.replace(schema.find("log.csv"), 7, file);
    write_file(folder / name + "/schema.json", schema);
    return folder / name;
  }
  std::string refusal(std::vector<std::string> arguments) {
    const ChildResult result = run_mixrec(arguments, folder);
    CHECK(result.code == 1);
    return result.err;
  }

  TemporaryFolder folder;
  Cache cache;
  std::string data, run = folder / "run";
};

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Cells that describe the item of row `l`, most often others than the item's earlier rows have; some are empty.
std::string described(size_t l) {
  const std::string n = std::to_string(l % 7);
  return ",genre " + n + "," + (l % 5 == 0 ? "" : std::to_string(0.1 * static_cast<double>(l % 11))) +
         ",tag " + n + "|tag " + std::to_string(l % 3) + ",brand " + n + "," + std::to_string(l % 13);
}

// A log whose rows describe their items, by every encoding.
std::string described_log(const TemporaryFolder& folder, const std::string& name,
                          const std::vector<std::string>& lines, const std::string& which) {
  fs::create_directories(folder / name);
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  write_file(folder / name + "/log.csv", text);
  std::string schema = small_schema_text(), item = "\"item\": [\"item\"";
  const std::string kept = R"(, "item_values": ")" + which + "\"}";
  for (const char* feature : {R"({"column": "genre")", R"({"column": "price", "buckets": [0.25, 0.6])",
                              R"({"column": "tags", "list": "|")", R"({"column": "brand", "hash": 50)",
                              R"({"column": "rank", "numeric": "standard")"})
    item += std::string(", ") + feature + kept;
  const std::string before = "\"item\": [\"item\"";
  schema.replace(schema.find(before), before.size(), item);
  const std::string events = "\"features\": [\"item\"]";
  schema.replace(schema.find(events), events.size(), "\"features\": [\"item\", \"genre\"]");
  write_file(folder / name + "/schema.json", schema);
  return folder / name;
}

}  // namespace

TEST_SUITE("run binding") {
  TEST_CASE("equal rows get equal numbers in reordered, grown, thinned and renamed logs") {
    for (const char* model : {"mlp", "mixformer"}) {
      CAPTURE(model);
      Trained trained(model);
      const auto expected = predicted(trained.run, trained.data, trained.folder);
      REQUIRE(expected.size() == 61);
      std::vector<std::string> lines = lines_of(small_log_text());
      auto reordered = lines;
      std::reverse(reordered.begin() + 1, reordered.end());
      CHECK(predicted(trained.run, trained.copy("reordered", reordered), trained.folder) == expected);
      CHECK(predicted(trained.run, trained.copy("renamed", lines, "events.csv"), trained.folder) == expected);
      auto grown = lines;
      for (int i = 0; i < 5; ++i)
        grown.push_back("new" + std::to_string(i) + ",777," + std::to_string(8 * 86'400 + i) + ",1,0");
      const auto more = predicted(trained.run, trained.copy("grown", grown), trained.folder);
      CHECK(more.size() == expected.size() + 5);
      for (const auto& [cells, numbers] : expected) CHECK(more.at(cells) == numbers);
      // Thinned: the rows of half of the test day, all earlier ones.
      auto thinned = lines;
      thinned.resize(thinned.size() - 30);
      const auto fewer = predicted(trained.run, trained.copy("thinned", thinned), trained.folder);
      CHECK(fewer.size() == 31);
      for (const auto& [cells, numbers] : fewer) CHECK(expected.at(cells) == numbers);
      for (const char* name : {"reordered", "renamed", "grown", "thinned"})
        CHECK_FALSE(fs::exists(trained.folder / name + "/.mixrec"));
    }
  }

  TEST_CASE("items keep the values that training rows gave them, in whatever data they are met again") {
    for (const char* which : {"first", "last"}) {
      CAPTURE(which);
      const TemporaryFolder folder;
      const Cache cache(folder);
      auto lines = lines_of(small_log_text());
      lines[0] += ",genre,price,tags,brand,rank";
      for (size_t l = 1; l < lines.size(); ++l) lines[l] += described(l);
      const std::string data = described_log(folder, "log", lines, which), run = folder / "run";
      const ChildResult trained = run_mixrec(
          {"train", "--quiet", "--data", data, "--out", run, "--set", "data.batch_size=64"}, folder);
      CAPTURE(trained.err);
      REQUIRE(trained.code == 0);
      const auto expected = predicted(run, data, folder);
      REQUIRE(expected.size() == 61);
      // Users that the run does not know, and the oldest and newest training rows of every item, say otherwise.
      for (int item = 100; item < 115; ++item)
        for (const int time : {-1, 6 * 86'400 - 1})
          lines.push_back("new," + std::to_string(item) + "," + std::to_string(time + 1 + item % 2) +
                          ",1,0," + (item % 2 ? "genre 1" : "genre 3") + ",77,tag 1|tag 9,brand 3,5");
      std::reverse(lines.begin() + 1, lines.end());
      const std::string other = described_log(folder, "other", lines, which);
      CHECK(predicted(run, other, folder) == expected);
      // Data of its own encoders would have the other values.
      CHECK(Dataset::open(other).encoders().features[2].item_values !=
            Dataset::open(data).encoders().features[2].item_values);
      // The values are the run's: a changed one is found out.
      const std::string file = run + "/encoders/item_values.2.txt";
      const auto labels = check_folder(run + "/encoders", Encoders::kFormat).labels;
      std::string text = read_file(file);
      text[text.find("genre ") + 6] = '8';
      write_file(file, text);
      write_index(run + "/encoders", Encoders::kFormat, labels);
      const ChildResult refused = run_mixrec({"eval", run}, folder);
      CHECK(refused.code == 1);
      CHECK(holds(refused.err, file + " has been changed"));
    }
  }

  TEST_CASE("values that the run does not know are row 0, and their share is said") {
    Trained trained;
    auto lines = lines_of(small_log_text());
    for (size_t l = lines.size() - 30; l < lines.size(); ++l)
      lines[l] = "nobody" + lines[l].substr(lines[l].find(','));
    const ChildResult result =
        run_mixrec({"eval", trained.run, "--data", trained.copy("new", lines)}, trained.folder);
    CHECK(result.code == 0);
    CHECK(holds(result.err, "user: 50 % of its values are unknown to the run, 0 % in training"));
    CHECK_FALSE(holds(result.err, "item: "));
  }

  TEST_CASE("a schema that changes what training keeps changes nothing of an old run") {
    Trained trained;
    const std::string before = run_mixrec({"eval", trained.run}, trained.folder).out;
    std::string schema = small_schema_text();
    schema.replace(schema.find("\"loss_weight\": 0.5"), 18, "\"kept_negatives\": 0.1");
    write_file(trained.data + "/schema.json", schema);
    const ChildResult after = run_mixrec({"eval", trained.run}, trained.folder);
    CHECK(after.out == before);
    CHECK(holds(after.err, "tasks.shared.kept_negatives: nothing -> 0.1"));
    // Other times are other data: what its columns mean is not guessed.
    auto lines = lines_of(small_log_text());
    lines.pop_back();
    const std::string other = trained.copy("other", lines);
    schema = small_schema_text();
    schema.replace(schema.find("\"time\": \"time\""), 14, R"("time": {"column": "time", "unit": "ms"})");
    write_file(other + "/schema.json", schema);
    CHECK(
        holds(trained.refusal({"eval", trained.run, "--data", other}), "gives the columns another meaning"));
  }

  TEST_CASE("an encoder that was cut, edited, or is missing is refused by name") {
    const Trained made;
    for (const char* command : {"eval", "verify"})
      for (const int kind : {0, 1, 2}) {
        CAPTURE(command);
        CAPTURE(kind);
        const std::string run = made.folder / "broken";
        fs::remove_all(run);
        fs::copy(made.run, run, fs::copy_options::recursive);
        const std::string file = run + (kind == 2 ? "/encoders/features.json" : "/encoders/vocabulary.1.txt");
        std::string text = read_file(file);
        if (kind == 0) text.erase(0, text.find('\n') + 1);
        if (kind == 1) std::swap(text[0], text[2]);
        kind == 2 ? fs::remove(file) : (write_file(file, text), true);
        const ChildResult result = run_mixrec({command, run}, made.folder);
        CHECK(result.code == 1);
        CHECK(holds(result.err, file));
        CHECK(holds(result.err, kind == 0   ? "lines where 15 were written"
                                : kind == 1 ? "hash"
                                            : "is missing"));
        CHECK(holds(message_of([&] { Scorer scorer(run); }), file));
        if (kind != 1) continue;
        // An index that was made to fit does not help.
        write_index(run + "/encoders", Encoders::kFormat, check_folder(made.run + "/encoders", 2).labels);
        CHECK(holds(run_mixrec({command, run}, made.folder).err, file));
      }
  }

  TEST_CASE("a file that changes and keeps its size and time is seen") {
    const TemporaryFolder folder;
    const std::string data = write_small_data(folder);
    const auto rate = [&] { return Dataset::open(data).stats(Split::train).tasks[0].positives; };
    const double before = rate();
    const auto time = fs::last_write_time(data + "/log.csv");
    std::string text = read_file(data + "/log.csv");
    for (size_t at = text.find('\n'); at + 4 < text.size(); at = text.find('\n', at + 1))
      if (at + 1 < text.size()) {
        char& label = text[text.find('\n', at + 1) - 3];
        label = label == '0' ? '1' : '0';
      }
    write_file(data + "/log.csv", text);
    fs::last_write_time(data + "/log.csv", time);
    CHECK(rate() == 360 - before);
  }

  TEST_CASE("differences of contents are told by their bytes, whatever files are called") {
    const TemporaryFolder folder;
    const std::string start(3 << 20, 'a');
    write_file(folder / "a", start + "tail"), write_file(folder / "b", start + "tail and more");
    write_file(folder / "c", start + "else");
    const auto of = [&](const std::string& name) { return fingerprint_of(folder.path(), {name}); };
    CHECK(differences(of("a"), of("a")).empty());
    CHECK(differences(of("a"), of("b")) ==
          std::vector<std::string>{"b (was a): equal to the first 3145732 bytes, then grown by 9 bytes"});
    CHECK(differences(of("a"), of("c"))[0].ends_with("the first 3 MiB are equal"));
    fs::copy(folder / "a", folder / "d");
    CHECK(differences(of("a"), of("d")).empty());
    CHECK(of("a").digest() == of("d").digest());
  }

  TEST_CASE(
      "a resume on other data, other settings or another run's files is refused, on finished runs too") {
    Trained trained;
    auto lines = lines_of(small_log_text());
    std::swap(lines[1], lines[2]);
    const std::string said = trained.refusal({"train", "--out", trained.run, "--resume", "--data",
                                              trained.copy("swapped", lines), "--set", "optimizer.lr=0.5"});
    CHECK(holds(said, "optimizer.lr: 0.001 -> 0.5"));
    CHECK(holds(said, "data log.csv: "));
    CHECK(run_mixrec({"train", "--out", trained.run, "--resume"}, trained.folder).code == 0);
    trained.train(trained.folder / "other", "mlp", 2);
    for (const char* file : {"best.safetensors", "checkpoint.safetensors", "encoders"}) {
      CAPTURE(file);
      const std::string run = trained.folder / "mixed";
      fs::remove_all(run);
      fs::copy(trained.run, run, fs::copy_options::recursive);
      fs::remove_all(run + "/" + file), fs::remove(run + "/result.json");
      fs::copy(trained.folder / "other/" + file, run + "/" + file, fs::copy_options::recursive);
      CHECK(holds(trained.refusal({"train", "--out", run, "--resume"}), "belongs to another run"));
      if (std::string(file) != "checkpoint.safetensors")
        CHECK(holds(trained.refusal({"eval", run}), "belongs to another run"));
    }
    std::string config = read_file(trained.run + "/config.json");
    CHECK(holds(config, "\"dropout\""));  // a default of the model
    config.replace(config.find("\"epochs\": 1"), 11, "\"epochs\": 2");
    write_file(trained.run + "/config.json", config);
    CHECK(holds(trained.refusal({"eval", trained.run}), "config.json has been changed since the run began"));
  }

  TEST_CASE("every file of a run says which run it is of, and a resume looks") {
    Trained trained;
    const auto labels = check_folder(trained.run + "/encoders", Encoders::kFormat).labels;
    const std::string said =
        "\"format\":2,\"run\":\"" + labels.at("run") + "\",\"config\":\"" + labels.at("config") + "\"}";
    CHECK(lines_of(read_file(trained.run + "/metrics.jsonl"))[0] == "{" + said);
    CHECK(read_file(trained.run + "/result.json").ends_with("," + said + "\n"));
    int events = 0;
    for (const auto& entry : fs::directory_iterator(trained.run))
      if (entry.path().filename().string().starts_with("events.")) {
        ++events;
        CHECK(holds(read_file(entry.path()), said));
      }
    CHECK(events == 1);
    trained.train(trained.folder / "other", "mlp", 2);
    const std::string run = trained.folder / "mixed";
    for (const std::string file : {"metrics.jsonl", "result.json"})
      for (const std::string change : {"run", "config", "nothing"}) {
        CAPTURE(file);
        CAPTURE(change);
        fs::remove_all(run);
        fs::copy(trained.run, run, fs::copy_options::recursive);
        std::string text = read_file(trained.folder / "other/" + file);
        if (change == "config") {  // of this run, but for the hash
          text = read_file(run + "/" + file);
          text.replace(text.find(labels.at("config")), 1, "x");
        }
        if (change == "nothing") text = "{\"step\":1}\n";
        write_file(run + "/" + file, text);
        if (file == "metrics.jsonl") fs::remove(run + "/result.json");
        const std::string refused = trained.refusal({"train", "--out", run, "--resume"});
        CAPTURE(refused);
        CHECK(holds(refused, run + "/" + file));
        CHECK(holds(refused, change == "run"      ? "belongs to another run"
                             : change == "config" ? "was made with another configuration"
                                                  : "does not say which run it belongs to"));
        CHECK(read_file(run + "/" + file) == text);
      }
    // Lost lines keep nobody from going on, and what is written anew says whose it is.
    fs::remove_all(run);
    fs::copy(trained.run, run, fs::copy_options::recursive);
    fs::remove(run + "/metrics.jsonl"), fs::remove(run + "/result.json");
    CHECK(run_mixrec({"train", "--out", run, "--resume"}, trained.folder).code == 0);
    CHECK(lines_of(read_file(run + "/metrics.jsonl"))[0] == "{" + said);
  }

  TEST_CASE("a run's encoders are those of the form that was opened, whatever becomes of the log meanwhile") {
    const TemporaryFolder folder;
    const Cache cache(folder);
    const Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    const std::string form = data.packed_folder(), id = data.encoders().id;
    std::map<std::string, std::string> opened;
    for (const auto& entry : fs::directory_iterator(form + "/encoders"))
      opened[entry.path().filename()] = read_file(entry.path());
    int changes = 0;
    const auto change = [&] {
      std::string text = "user,item,time,liked,shared\n";
      for (const std::string& line : lines_of(small_log_text()))
        if (line[0] != 'u') text += std::to_string(changes) + "new" + line + "\n";
      ++changes;
      write_file(config.data.path + "/log.csv", text);
      CHECK(run_mixrec({"prepare", config.data.path}, folder).code == 0);
    };
    change();  // after opening, before the run begins
    SmallModel model(data);
    model.before = [&](int64_t pass) {
      if (pass == 3) change();
    };
    const std::string run = folder / "run";
    CHECK(fit(model, data, {.config = config, .out = run, .quiet = true}).finished);
    CHECK(changes == 2);
    CHECK(read_record(RunFolder::resume(run)).encoders == id);
    CHECK(Dataset::open(config.data.path).encoders().id != id);
    for (const auto& [name, text] : opened) {
      CAPTURE(name);
      if (name != "index.json") CHECK(read_file(run + "/encoders/" + name) == text);
    }
    CHECK(fs::exists(form));  // somebody reads it
  }

  TEST_CASE("a run is found with its data when both are moved, and says where the data was") {
    Trained trained;
    const std::string before = run_mixrec({"eval", trained.run}, trained.folder).err;
    fs::create_directories(trained.folder / "moved");
    fs::rename(trained.data, trained.folder / "moved/log");
    const std::string said = trained.refusal({"eval", trained.run});
    CHECK(holds(said, trained.data));
    CHECK(holds(said, "give --data DIR"));
    fs::rename(trained.run, trained.folder / "moved/run");
    CHECK(run_mixrec({"eval", trained.folder / "moved/run"}, trained.folder).code == 0);
  }

  TEST_CASE("what a run that was killed at its beginning leaves counts as free") {
    Trained trained;
    const std::string out = trained.folder / "begun";
    fs::create_directories(out + "/encoders.tmp-1234");
    write_file(out + "/config.json.tmp", "{");
    trained.train(out, "mlp", 1);
    CHECK_FALSE(fs::exists(out + "/encoders.tmp-1234"));
    CHECK_FALSE(fs::exists(out + "/config.json.tmp"));
  }

  TEST_CASE("leftovers of processes that died are removed, those of living ones stay") {
    const TemporaryFolder folder;
    const std::string data = write_small_data(folder), dead = data + "/.mixrec/packed-0-0.tmp-12";
    Dataset::open(data);
    AtomicFolder living(data + "/.mixrec/packed-1-1");
    fs::create_directories(dead);
    Dataset::open(data);  // a fitting form exists
    CHECK_FALSE(fs::exists(dead));
    CHECK(fs::exists(living.folder()));
  }
}
