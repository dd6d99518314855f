#include "mixrec/train/signals.h"

#include "mixrec/core/error.h"
#include "mixrec/data/packing/packed_files.h"

#include <array>
#include <csignal>
#include <cstring>
#include <unistd.h>

namespace mixrec {

namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM};
volatile std::sig_atomic_t received_signal = 0;
bool installed = false;
std::array<struct sigaction, kSignals.size()> previous;

extern "C" void note_signal(int signal) {
  received_signal = signal;
  for (const int other : kSignals) std::signal(other, SIG_DFL);
}

}  // namespace

StopSignals::StopSignals() {
  MR_CHECK(!installed, "two training loops cannot both catch signals");
  installed = true;
  received_signal = 0;
  struct sigaction action {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &previous[i]);
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &previous[i], nullptr);
  installed = false;
}

namespace {

struct sigaction before_lost;

void write_text(const char* text) {
  // Nothing can be done about a lost stderr.
  if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) return;
}

// Nothing but system calls: the thread was stopped anywhere.
extern "C" void end_lost(int signal, siginfo_t* info, void*) {
  if (const char* path = mapped_file_at(info->si_addr)) {
    write_text("mixrec: cannot read ");
    write_text(path);
    write_text(": it was cut while it was in use, or its disk has failed\n");
    ::_exit(1);
  }
  std::signal(signal, SIG_DFL);  // not ours: returning meets the fault again
}

}  // namespace

LostFileSignals::LostFileSignals() {
  struct sigaction action {};
  action.sa_sigaction = end_lost;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, &before_lost);
}

LostFileSignals::~LostFileSignals() { sigaction(SIGBUS, &before_lost, nullptr); }

int StopSignals::received() { return installed ? received_signal : 0; }

}  // namespace mixrec
