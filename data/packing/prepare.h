// Turns a data set's files into their packed, memory-mapped form: once, in bounded memory, never
// half-written.
#pragma once

#include "mixrec/data/encoders/encoders.h"
#include "mixrec/data/packing/manifest.h"
#include "mixrec/data/packing/packed_files.h"
#include "mixrec/data/schema.h"

#include <functional>
#include <string>

namespace mixrec {

struct PrepareOptions {
  // Folder for packed forms; "": DATA/.mixrec, or ~/.cache/mixrec where DATA cannot be written.  With given encoders
  // DATA/.mixrec is used only where it exists: nothing is put into a folder that is merely looked at.
  std::string cache = {};
  // Folder of the encoders to use (RUN/encoders); "": they are counted from the data.
  std::string encoders = {};
  bool outside = false;  // see data/source_files.h
  bool again = false;    // prepare even when a packed form fits
  // For rows to be predicted: files may lack the columns of labels, weights and signals, which are then missing.
  bool labels_optional = false;
  std::function<void(const std::string&)> report;  // told one line per step
  // Told often what is being done and which share of it is done, 0 to 1; -1 where that is not known.
  std::function<void(const std::string& stage, double share)> progress;
};

// A packed form is addressed by the schema, the content of the files and the encoders.
struct PackedForm {
  std::string folder;
  Fingerprint content;  // of the files as they are now
  Encoders encoders;    // given ones, or those that it holds
  FolderLock lock;      // shared: nobody removes the folder while this lives
};

// The packed form of `folder` under `schema`.  It is made when there is none for the files as they are; otherwise this
// takes milliseconds.  Forms of files as they were before are removed once nobody reads them.
PackedForm prepare(const Schema& schema, const std::string& folder, const PrepareOptions& options = {});

// Contents of the files that `schema` names in `folder`, read where they may have changed.
Fingerprint content_of(const Schema& schema, const std::string& folder, const PrepareOptions& options = {});

}  // namespace mixrec
