#include "mixrec/train/signals.h"

#include "mixrec/core/error.h"

#include <array>
#include <csignal>

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

int StopSignals::received() { return received_signal; }

}  // namespace mixrec
