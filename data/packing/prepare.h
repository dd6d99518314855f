// Turns a data set's files into their packed, memory-mapped form: once, in bounded memory, never
// half-written.
#pragma once

#include "mixrec/data/packing/manifest.h"
#include "mixrec/data/schema.h"

#include <functional>
#include <string>

namespace mixrec {

struct PrepareOptions {
  std::string
      cache;  // folder for packed forms; "": DATA/.mixrec, or ~/.cache/mixrec where DATA cannot be written
  bool again = false;                              // prepare even when a packed form fits
  std::function<void(const std::string&)> report;  // told one line per step
  // Told often what is being done and which share of it is done, 0 to 1; -1 where that is not known.
  std::function<void(const std::string& stage, double share)> progress;
};

// Folder of the packed form of `folder` under `schema`.  It is made when there is none or when the schema or
// one of the sources has changed; otherwise this takes milliseconds.
std::string prepare(const Schema& schema, const std::string& folder, const PrepareOptions& options = {});

}  // namespace mixrec
