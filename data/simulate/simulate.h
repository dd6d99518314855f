// A simulated log whose true probabilities are known: what a model can reach is a number, not a guess.
//
// Requests arrive at times spread over `days`; each shows `candidates_per_request` items to one user, and the
// label `click` of a row is drawn with probability
//
//   p = sigmoid(b + Σ_k strength_k · z_k),      every z_k of mean 0 and variance 1 over the log
//
//   popularity  a number of the item
//   context     numbers of the hour, the channel (both of the request) and the placement (of the candidate), added
//   taste       Σ_r A_r[user field] · B_r[item attribute] / r: an interaction of observed fields, no main effects
//   match       Σ s_t / √n over the n past events of the candidate's category, s_t = +1 where `liked`, else −1
//   joint       the same over the events equal to the candidate in the two attributes that the user's segment picks
//               out of 28 pairs
//
// so a term can be learned only by a part of a model that can see it: match needs target attention (mean
// pooling loses it once categories and history are much longer than the pooled vector is wide), joint needs
// user and item features mixed before the attention, and several hundred thousand rows.
//
// A user's events never change during a day: they are the newest `history_length` events before it, and none
// lies after the last training day.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mixrec {

enum class SimulatedHistory : uint8_t {
  file,  // history.csv: one line a user, all events before the log starts, at log-uniform lags from 1 minute
         // to 90 days
  log,   // events are the user's earlier rows of log.csv; its column `liked` is their signal
};

struct SimulateOptions {
  std::string out;     // folder to write; made when missing, else it must be empty
  bool again = false;  // it may hold a log that was simulated before, which is then replaced
  int64_t rows = 250'000;
  uint64_t seed = 1;
  int64_t candidates_per_request = 4;
  int64_t users = 0;  // 0: one per 25 rows, at least 100
  int64_t items = 2'000;
  int64_t categories = 16;
  int64_t history_length = 64;
  SimulatedHistory history = SimulatedHistory::file;
  int64_t days = 10;
  int64_t test_days = 2;  // the last days; not in any history
  double click_rate = 0.3;

  // Standard deviation of each effect in the logit.
  double popularity = 0.6;
  double context = 0.5;
  double taste = 0.7;
  double match = 2.0;
  double joint = 0.0;
};

// The best AUC that a score can have which sees the terms up to and including `term`, in the order above.
struct SimulatedBound {
  std::string term;
  double auc = 0;  // against the labels that were drawn: compare a model's AUC on the same rows with this
  double expected_auc = 0;  // mean over all labels that could have been drawn
};

struct SimulatedPart {
  int64_t rows = 0;
  double click_rate = 0;
  std::vector<SimulatedBound> bounds;  // the first is the floor (popularity), the last the Bayes bound

  double floor_auc() const { return bounds.front().auc; }
  double bayes_auc() const { return bounds.back().auc; }
};

struct SimulateReport {
  SimulatedPart train;
  SimulatedPart test;
};

// How far a score has come from the floor (0) to the Bayes bound (1) on the rows of `part`.
inline double share_of_the_way(double auc, const SimulatedPart& part) {
  return (auc - part.floor_auc()) / (part.bayes_auc() - part.floor_auc());
}

// Writes log.csv, users.csv, items.csv, history.csv (unless the log is the history), truth.csv (per row of
// log.csv: probability, logit and every z_k), schema.json and bounds.json (the report and the options).
// Everything depends only on the options.  Memory grows with items, and with users · history_length in log
// mode, never with rows. Throws on a folder that holds anything else, on impossible options, naming the option, and on a failed write; then no new
// file is left behind.
SimulateReport simulate(const SimulateOptions& options);

}  // namespace mixrec
