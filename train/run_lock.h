// One process at a time trains into a run folder.
#pragma once

#include <string>

namespace mixrec {

// Holds RUN/.lock for its lifetime.  The lock is the system's (flock): it ends with the process, also with one that
// was killed; the file stays and says who held it last.
class RunLock {
 public:
  // Throws, naming who holds it, when another process does.  On a file system without locks it holds nothing.
  explicit RunLock(const std::string& folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  // The file in a run folder, which says nothing of the run itself.
  static constexpr const char* kName = ".lock";

 private:
  int fd_ = -1;
};

}  // namespace mixrec
