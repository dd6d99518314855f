#include "mixrec/tests/faults/fuzz/targets.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/safetensors.h"
#include "mixrec/core/printable.h"
#include "mixrec/data/expression.h"
#include "mixrec/data/json_reader.h"
#include "mixrec/data/loader.h"
#include "mixrec/data/schema.h"
#include "mixrec/data/time_format.h"
#include "mixrec/train/config.h"
#include "mixrec/train/serve/score_lines.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <unistd.h>

namespace mixrec::faults {

namespace {

namespace fs = std::filesystem;

// MIXREC_FUZZ_FOLDER, which is its maker's to remove, or a folder of this process, in memory where there is one.
const fs::path& folder() {
  // Never destroyed: it is removed at exit, after static objects.
  static const fs::path& path = *new fs::path([]() -> fs::path {
    if (const char* given = std::getenv("MIXREC_FUZZ_FOLDER")) return given;
    const fs::path base = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : fs::temp_directory_path();
    const fs::path made = base / ("mixrec-fuzz-" + std::to_string(::getpid()));
    fs::create_directories(made);
    std::atexit([] {
      std::error_code ignored;
      fs::remove_all(folder(), ignored);
    });
    return made;
  }());
  return path;
}

std::string write(const std::string& name, std::string_view text) {
  const fs::path path = folder() / name;
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

// The parts before and after the first `mark`.
std::pair<std::string, std::string> parted(std::string_view input, std::string_view mark) {
  const size_t at = input.find(mark);
  if (at == std::string_view::npos) return {std::string(input), ""};
  return {std::string(input.substr(0, at)), std::string(input.substr(at + mark.size()))};
}

void safetensors(std::string_view input) {
  const SafetensorsFile file(write("a.safetensors", input));
  file.check_values();
  for (const TensorHeader& tensor : file.tensors()) {
    std::vector<char> values(static_cast<size_t>(tensor.bytes()));
    file.read(tensor, values.data());
  }
}

void schema_and_log(std::string_view input) {
  const auto [schema_text, log] = parted(input, "\n---\n");
  const Schema schema = parse_schema(schema_text, "schema.json");
  const fs::path data = folder() / "data";
  fs::remove_all(data);
  write("data/log.csv", log);
  const Dataset dataset = Dataset::open(schema, data);
  for (const Split split : {Split::train, Split::test}) {
    if (dataset.stats(split).rows == 0) continue;
    Loader loader(dataset, split, {.batch_size = 7, .workers = 0});
    while (loader.next()) {
    }
  }
}

void score_line(std::string_view input) {
  static const Scorer scorer = [] {
    const char* run = std::getenv("MIXREC_FUZZ_RUN");
    if (!run) throw std::logic_error("MIXREC_FUZZ_RUN names no run folder");
    return Scorer(run);
  }();
  // Its own errors are answers, so that nothing at all may be thrown, and the answer is one line of JSON.
  const std::string answer = answer_score_line(scorer, std::string(input), 1);
  if (answer.find('\n') != std::string::npos || !is_utf8(answer))
    throw std::logic_error("no line of text: " + answer);
  JsonValue::parse(answer, "the answer");
}

void expression(std::string_view input) {
  static const std::string log = write("e.csv", "a,b,c\n1,2,x\n-3,0.5,\n0,1e30,y y\n");
  expression_columns(std::string(input));
  CsvReader reader(log, {});
  const Expression rule(std::string(input), reader);
  while (reader.next()) rule(reader);
}

void config(std::string_view input) {
  const Config read = load_config(write("c.json", input), {});
  // What is dumped is read back as the same.
  const std::string dumped = dump_config(read);
  if (dump_config(load_config(write("d.json", dumped), {})) != dumped)
    throw std::logic_error("a configuration changes when it is written: " + dumped);
}

void time_text(std::string_view input) {
  const auto [format, text] = parted(input, "\n");
  check_time_format(format, "the format");
  int64_t milliseconds = 0;
  if (parse_time(text, format, milliseconds)) day_text(milliseconds / 86'400'000);
  parse_day(text, "the day");
}

}  // namespace

const std::vector<Target>& targets() {
  static const std::vector<Target> all = {{"safetensors", safetensors}, {"schema", schema_and_log},
                                          {"score", score_line},        {"expression", expression},
                                          {"config", config},           {"time", time_text}};
  return all;
}

void run_guarded(const Target& target, std::string_view input) {
  try {
    target.run(input);
  } catch (const Error& error) {
    const std::string message = error.what();
    if (!is_utf8(message)) throw std::logic_error("a message that is not UTF-8: " + printable(message));
    if (message.empty() || message.size() > 8000)
      throw std::logic_error("a message of " + std::to_string(message.size()) + " bytes");
  }
}

}  // namespace mixrec::faults
