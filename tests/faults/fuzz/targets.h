// What is fuzzed: functions that take any bytes.  One may refuse them with a mixrec::Error; any other exception, a
// message that is not UTF-8 or not short, a signal or a hang is a fault.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace mixrec::faults {

struct Target {
  const char* name;  // and its folder in tests/faults/corpus
  void (*run)(std::string_view input);
};

// safetensors, schema (a schema and its log, parted by a line "---"), score, expression, config, time (a format
// and a text, parted by a line break).  `score` needs a run folder in MIXREC_FUZZ_RUN.
const std::vector<Target>& targets();

// Runs one and throws std::logic_error with a sentence on a fault.
void run_guarded(const Target& target, std::string_view input);

}  // namespace mixrec::faults
