// SIGINT and SIGTERM ask the training loop to finish its step, save and leave; a second one kills at once.
#pragma once

namespace mixrec {

// Catches both signals for its lifetime and restores what was there before.  One at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Number of the signal that came, 0 for none or while nobody catches them.
  static int received();

  // 128 + the signal's number, as shells report it: 130 or 143.
  static int exit_code() { return 128 + received(); }
};

// While it lives, SIGBUS from a mapped file (one that was cut while it was read, or whose disk failed) ends the
// process with one line that names the file and exit code 1.  The command line's: a library leaves it alone.
class LostFileSignals {
 public:
  LostFileSignals();
  ~LostFileSignals();
  LostFileSignals(const LostFileSignals&) = delete;
  LostFileSignals& operator=(const LostFileSignals&) = delete;
};

}  // namespace mixrec
