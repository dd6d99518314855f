#include "mixrec/train/output_file.h"

#include "mixrec/core/error.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <string_view>

namespace mixrec {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kOfRuns[] = {"config.json",      "run.json",      "checkpoint.safetensors",
                                        "best.safetensors", "metrics.jsonl", ".lock",
                                        "result.json"};

bool is_of_a_run(const fs::path& file) {
  const std::string name = file.filename();
  return std::find(std::begin(kOfRuns), std::end(kOfRuns), name) != std::end(kOfRuns) ||
         name.starts_with("events.out.");
}

}  // namespace

void check_output(const std::string& out, const std::string& run, const std::vector<std::string>& inputs) {
  MR_CHECK(!fs::is_directory(out), "--out ", out, " is a folder; name a file");
  std::error_code ignored;
  for (const std::string& input : inputs)
    MR_CHECK(!fs::equivalent(out, input, ignored), "--out ", out, " is ", input,
             ", which is read; name another file");
  const fs::path file = fs::weakly_canonical(out, ignored), home = fs::weakly_canonical(run, ignored);
  const fs::path folder = file.parent_path();
  MR_CHECK(
      !(folder == home && is_of_a_run(file)) && folder != home / "encoders" && folder != home / "features",
      "--out ", out, " is a file of the run ", run, "; name another file");
}

}  // namespace mixrec
