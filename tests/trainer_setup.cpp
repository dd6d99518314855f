#include "mixrec/tests/trainer_setup.h"

#include "mixrec/core/error.h"
#include "mixrec/core/files/safetensors.h"
#include "mixrec/train/cli.h"

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <filesystem>
#include <regex>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace mixrec::test {

std::string small_log_text() {
  std::string text = "user,item,time,liked,shared\n";
  Rng rng(5);
  for (int64_t day = 0; day < 8; ++day) {
    for (int64_t i = 0; i < 60; ++i) {
      const auto user = static_cast<int64_t>(rng.below(12)), item = static_cast<int64_t>(rng.below(15));
      const double appeal = static_cast<double>(item % 5) - 2 + (user % 3 == item % 3 ? 1.5 : -0.5);
      const auto drawn = [&](double logit) { return rng.uniform() < 1 / (1 + std::exp(-logit)) ? "1" : "0"; };
      text += std::to_string(user) + "," + std::to_string(100 + item) + "," +
              std::to_string(day * 86'400 + i * 60) + "," + drawn(appeal) + "," + drawn(-appeal - 1) + "\n";
    }
  }
  return text;
}

std::string small_schema_text(const std::string& split) {
  return R"({"log": {"files": "log.csv", "user": "user", "item": "item", "time": "time"},
    "width": 4,
    "tasks": {"liked": "liked == 1", "shared": {"label": "shared == 1", "loss_weight": 0.5}},
    "features": {"user": ["user"], "item": ["item"]},
    "histories": {"seen": {"length": 5, "from": [{"log": true, "signals": {"liked": "liked"}}],
                           "features": ["item"], "position": true}},
    "split": {"by": "date", )" +
         split + "}}";
}

std::string write_small_data(const TemporaryFolder& folder, const std::string& name) {
  const std::string path = folder / name;
  std::filesystem::create_directories(path);
  write_file(path + "/log.csv", small_log_text());
  write_file(path + "/schema.json", small_schema_text());
  return path;
}

namespace {

MlpModel small_mlp(const Dataset& data, double dropout, uint64_t seed) {
  Rng rng(seed);
  return MlpModel(data.spec(),
                  {.hidden = 8, .pooled_history = true, .dropout = dropout, .table_deviation = 0.05}, rng);
}

}  // namespace

SmallModel::SmallModel(const Dataset& data, double dropout, uint64_t seed)
    : mlp(small_mlp(data, dropout, seed)) {}

Tensor SmallModel::forward(const RequestBatch& batch, Pass& pass) {
  ++passes;
  if (before) before(passes);
  return mlp.forward(batch, pass);
}

Config small_config(const std::string& data) {
  Config config;
  config.data.path = data;
  config.data.batch_size = 32;
  config.model.name = "mlp";
  config.train.epochs = 2;
  config.train.eval_every = 5;
  config.train.log_every = 2;
  config.train.checkpoint_every = 3;
  config.train.clip_norm = 1;
  config.train.ema = 0.8;
  config.train.device = "cpu";  // the models of these tests look into the memory of their tensors
  config.optimizer = {.name = "adamw", .lr = 0.01};
  config.table_optimizer = {.name = "lazy_adam", .lr = 0.05};
  config.schedule.name = "cosine";
  config.schedule.warmup_steps = 3;
  return config;
}

std::vector<float> all_weights(SmallModel& model) {
  std::vector<float> all;
  for (const Parameter& parameter : parameters(model)) {
    const auto values = parameter.value.to_vector();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

std::map<std::string, std::string> run_content(const std::string& path) {
  const SafetensorsFile file(path);
  std::map<std::string, std::string> all;
  for (const TensorHeader& header : file.tensors()) {
    std::string bytes(static_cast<size_t>(header.bytes()), '\0');
    file.read(header, bytes.data());
    all[header.name] = bytes;
  }
  for (const auto& [key, value] : file.metadata())
    if (key != "seconds" && key != "train_seconds" && key != "metrics_bytes" && key != "run")
      all["scalar " + key] = value;
  return all;
}

void check_same_runs(const std::string& a, const std::string& b) {
  CHECK(run_content(a + "/best.safetensors") == run_content(b + "/best.safetensors"));
  CHECK(run_content(a + "/checkpoint.safetensors") == run_content(b + "/checkpoint.safetensors"));
  CHECK(without_timings(read_file(a + "/metrics.jsonl")) == without_timings(read_file(b + "/metrics.jsonl")));
  CHECK(without_timings(read_file(a + "/result.json")) == without_timings(read_file(b + "/result.json")));
}

std::string without_timings(const std::string& json_lines) {
  static const std::regex timings(R"re(,"(seconds|samples_per_second|run)":[^,}]*)re");
  // The run's id is as different from run to run.
  return std::regex_replace(json_lines, timings, "");
}

namespace {

constexpr const char* kArguments = "MIXREC_TEST_ARGUMENTS";
constexpr char kSeparator = '\x1f';

int wait_for(pid_t child, int kill_signal, const std::function<bool()>& kill_when) {
  int status = 0;
  bool killed = false;
  while (waitpid(child, &status, kill_when && !killed ? WNOHANG : 0) == 0) {
    if (kill_when()) kill(child, kill_signal), killed = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

ChildResult run_mixrec(const std::vector<std::string>& arguments, const TemporaryFolder& folder,
                       int kill_signal, const std::function<bool()>& kill_when) {
  std::string joined = std::string(kArguments) + "=mixrec";
  for (const std::string& argument : arguments) joined += kSeparator + argument;
  const std::string out = folder / "child.out", err = folder / "child.err";
  std::vector<char*> environment;
  for (char** entry = environ; *entry; ++entry) environment.push_back(*entry);
  environment.push_back(joined.data());
  environment.push_back(nullptr);
  std::string program = "/proc/self/exe", filter = "--test-case=mixrec in a process of its own";
  std::string quiet = "--minimal=true";
  char* child_arguments[] = {program.data(), filter.data(), quiet.data(), nullptr};
  const pid_t child = fork();
  MR_CHECK(child >= 0, "cannot fork");
  if (child == 0) {
    dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), STDOUT_FILENO);
    dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644), STDERR_FILENO);
    execve(program.c_str(), child_arguments, environment.data());
    _exit(127);
  }
  ChildResult result;
  result.code = wait_for(child, kill_signal, kill_when);
  result.out = read_file(out);
  result.err = read_file(err);
  return result;
}

TEST_CASE("mixrec in a process of its own") {
  const char* joined = std::getenv(kArguments);
  if (!joined) return;  // only the child that run_mixrec() starts has work here
  std::vector<std::string> arguments;
  std::string text = joined;
  for (size_t at = 0; at != std::string::npos;) {
    const size_t end = text.find(kSeparator, at);
    arguments.push_back(text.substr(at, end - at));
    at = end == std::string::npos ? end : end + 1;
  }
  std::vector<const char*> argv;
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  const int code = cli(static_cast<int>(argv.size()), argv.data());
  std::fflush(nullptr);
  std::_Exit(code);
}

}  // namespace mixrec::test
