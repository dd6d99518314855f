// Which run a file belongs to, and what the run was trained on: RUN/run.json, and a few scalars in every checkpoint.
#pragma once

#include "mixrec/data/dataset.h"
#include "mixrec/train/checkpoint.h"
#include "mixrec/train/config.h"
#include "mixrec/train/run_folder.h"

#include <cstdint>
#include <string>
#include <vector>

namespace mixrec {

struct RunRecord {
  static constexpr int64_t kFormat = 2;

  int64_t format = kFormat;
  std::string run;                       // 16 random hexadecimal digits
  std::string config;                    // hash of config.json, but for what a resume may change
  std::string encoders;                  // id of RUN/encoders
  std::string data;                      // digest of the content
  std::string data_path, data_relative;  // the data folder: absolute, and as seen from the run
  Fingerprint content;

  // What the run's tensors and encoders carry: format, run, config, encoders, data.
  Scalars labels() const;
  // What its JSON carries: "format":2,"run":"…","config":"…" for a line, without braces.
  std::string json_labels() const;
  // Throws, naming `path`, when scalars of a file of the run belong to another run, configuration or data.
  void check(const Scalars& of_file, const std::string& path) const;
};

// The record of a new run on this data.
RunRecord new_record(const Dataset& data, const Config& config, const std::string& run);

// Writes RUN/encoders and RUN/run.json.
void begin_run(const RunFolder& folder, const RunRecord& record, const Dataset& data);

// Reads RUN/run.json and checks that config.json and the labels of encoders/ are those of the run.  A run without
// run.json is of format 1: all else is empty.
RunRecord read_record(const RunFolder& folder);

// Throws when a run does not hold what its data was encoded with: one of format 1 that is not finished.
void check_has_encoders(const RunFolder& folder, const RunRecord& record);

// Whether a configuration key may differ between a run and its resume: it changes no bit of the outcome, but for the
// device, which may be another by the time that a run goes on.
bool may_change(const std::string& difference);

// Throws when the first line of metrics.jsonl, or result.json, says that it belongs to another run or configuration, or
// does not say to which.  A file that is not there, and a line that a crash cut, say nothing.
void check_reports(const RunFolder& folder, const RunRecord& record);

// Throws one error that lists all in which the configuration, the schema (its JSON) and the data differ from those that
// the run was begun with.
void check_resumable(const RunFolder& folder, const RunRecord& record, const Config& config,
                     const std::string& schema, const Fingerprint& content);

// "features.item[0].min_count: 1 -> 5" for every place in which two JSON texts differ.
std::vector<std::string> json_differences(const std::string& before, const std::string& now);

}  // namespace mixrec
