// Replays a folder of inputs, and mutations of them, without a fuzzing engine:
//
//   fuzz_replay TARGET FOLDER MUTATIONS [SEED]
//
// Every file is run as it is, then so many times with a few random bytes flipped, cut out, doubled or taken from
// another file.  Prints "N inputs, N faults"; a fault is printed with its input, a signal ends the program after its
// input was left in MIXREC_FUZZ_FOLDER or /tmp, as mixrec-fuzz-TARGET.
#include "mixrec/tests/faults/fuzz/targets.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

using namespace mixrec::faults;

namespace {

std::string mutated(std::string input, const std::vector<std::string>& seeds, std::mt19937_64& random) {
  const auto below = [&](size_t bound) { return static_cast<size_t>(random() % bound); };
  for (size_t changes = 1 + below(4); changes > 0; --changes) {
    const size_t at = below(input.size() + 1), length = below(std::min<size_t>(input.size() - at, 16) + 1);
    const std::string& other = seeds[below(seeds.size())];
    const size_t from = below(other.size() + 1);
    switch (below(5)) {
      case 0:
        if (at < input.size()) input[at] = static_cast<char>(input[at] ^ (1 << below(8)));
        break;
      case 1:
        input.erase(at, length);
        break;
      case 2:
        input.insert(at, input.substr(at, length));
        break;
      case 3:
        input.insert(at, other.substr(from, 1 + below(24)));
        break;
      default: {
        static const std::vector<std::string> odd = {
            "-1", "1e309", "null",    "{}", "[]", "\"\"", "18446744073709551616", "\xff", "NaN",
            "0",  "1e18",  "\\u0000", "''", "%",  "\n"};
        input.replace(at, length, odd[below(odd.size())]);
      }
    }
  }
  return input;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) return std::fprintf(stderr, "fuzz_replay TARGET FOLDER MUTATIONS [SEED]\n"), 2;
  const auto target = std::find_if(targets().begin(), targets().end(),
                                   [&](const Target& one) { return one.name == std::string(arguments[1]); });
  if (target == targets().end()) return std::fprintf(stderr, "no target %s\n", arguments[1]), 2;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(arguments[2])) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> seeds;
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  if (seeds.empty()) return std::fprintf(stderr, "%s is empty\n", arguments[2]), 2;
  std::mt19937_64 random(count > 4 ? std::strtoull(arguments[4], nullptr, 10) : 1);
  const char* folder = std::getenv("MIXREC_FUZZ_FOLDER");
  const std::string newest = std::string(folder ? folder : "/tmp") + "/mixrec-fuzz-" + target->name;
  long inputs = 0, faults = 0;
  const auto run = [&](const std::string& input) {
    ++inputs;
    std::ofstream(newest, std::ios::binary) << input;
    try {
      run_guarded(*target, input);
    } catch (const std::exception& fault) {
      ++faults;
      std::printf("FAULT: %s\n  of the input %s\n", fault.what(), input.substr(0, 2000).c_str());
    }
  };
  for (const std::string& seed : seeds) run(seed);
  for (long m = std::strtol(arguments[3], nullptr, 10); m > 0; --m)
    for (const std::string& seed : seeds) run(mutated(seed, seeds, random));
  std::filesystem::remove(newest);
  std::printf("%ld inputs, %ld faults\n", inputs, faults);
  return faults > 0 ? 1 : 0;
}
