// The folder that a run leaves: what was asked, what happened, what came out.
//
//   config.json              the resolved configuration: every default too
//   run.json                 which run this is, and a fingerprint of the data that it was trained on (train/run_record.h)
//   encoders/                what turns raw values into the model's inputs (data/feature_export.h)
//   metrics.jsonl            one JSON object a line: which run it is, then training and evaluation; a resume cuts it back
//   events.out.tfevents.*    the same for TensorBoard
//   checkpoint.safetensors   the newest state, to resume from
//   best.safetensors         the model that the run chose
//   result.json              the line that the run ended with
//   .lock                    who trains into it (train/run_lock.h)
//
// A run of format 1 has no run.json, and features/ in the place of encoders/ once it is finished: docs/runs.md.
#pragma once

#include "mixrec/train/run_lock.h"

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace mixrec {

class RunFolder {
 public:
  // Throws when `path` holds anything already: a run is never overwritten.  What a run that was killed before it had a
  // config.json left behind does not count.
  static void check_free(const std::string& path);

  // A fresh run: creates the folder, which must be free.
  static RunFolder create(const std::string& path);

  // An existing run: the folder must hold a config.json.
  static RunFolder resume(const std::string& path);

  const std::string& path() const { return path_; }
  std::string config_path() const { return path_ + "/config.json"; }
  std::string checkpoint_path() const { return path_ + "/checkpoint.safetensors"; }
  std::string best_path() const { return path_ + "/best.safetensors"; }
  std::string record_path() const { return path_ + "/run.json"; }
  std::string encoders_path() const;  // features/ where a run of format 1 left it
  std::string result_path() const { return path_ + "/result.json"; }
  std::string metrics_path() const { return path_ + "/metrics.jsonl"; }
  bool has_checkpoint() const;

  // Keeps other processes from training into the folder, until the last copy of this object is gone; a fresh run
  // is locked already.  Throws when another process has it.
  void lock();

  // Appends one line to metrics.jsonl.
  void log(std::string_view json_line);

  bool has_metrics() const;  // whether it has a line

  // Bytes of metrics.jsonl so far, durable; a checkpoint keeps the number, and a resume cuts the file back to
  // it.
  int64_t sync_metrics();
  // False when the file had fewer bytes: lines were lost, and the run can go on.
  bool cut_metrics(int64_t bytes);

 private:
  explicit RunFolder(std::string path) : path_(std::move(path)) {}

  std::string path_;
  std::shared_ptr<const RunLock> lock_;
};

}  // namespace mixrec
