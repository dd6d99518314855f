// What a forward pass costs, counted product by product from the equations in the models' headers.
#include "mixrec/models/mlp.h"
#include "mixrec/models/unified/mixformer.h"
#include "mixrec/models/unified/ui_mixformer.h"
#include "mixrec/tests/golden_batch.h"

#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

constexpr double kN = 4, kD = 8, kL = 2, kDs = 3, kF = 6, kFs = 7, kH = 5;  // sizes of the models below
constexpr double kRequest = 10, kCandidate = 12, kEvent = 11, kTasks = 2;   // widths of the golden batch

MixFormerOptions sizes(bool pooled) {
  return {.heads = 4,
          .width = 8,
          .layers = 2,
          .event_width = 3,
          .ffn_hidden = 6,
          .sequence_hidden = 7,
          .head_hidden = 5,
          .pooled_history = pooled};
}

// Multiply-adds of a vector times a [in, out] matrix, each counted as 2.
double times(double in, double out) { return 2 * in * out; }
double swiglu(double width, double hidden) { return times(width, 2 * hidden) + times(hidden, width); }

struct Request {
  double candidates, events;
};
const Request kRequests[] = {{2, 3}, {1, 0}, {2, 4}};  // of the golden batch

// One query head of one layer: mixer, query and value projections, its share of the events, fusion.
double head(double events) {
  return swiglu(kD, kF) + times(kD, kDs) + events * (times(kDs, 1) + times(1, kDs)) + times(kDs, kD) +
         swiglu(kD, kF);
}

double events_of_request(double events) {
  return events * (times(kEvent, kN * kDs) + kL * swiglu(kN * kDs, kFs));
}

double slice(double width, double heads) {
  return static_cast<double>(static_cast<int>((width + heads - 1) / heads));
}

template <class Model>
double counted(const Model& model) {
  const Golden golden("mixformer");
  return model.forward_flops(golden_batch(golden, golden_spec()));
}

}  // namespace

TEST_CASE("FLOPs of MixFormer are those of its equations") {
  for (const bool pooled : {false, true}) {
    double expected = 0;
    for (const auto& [candidates, events] : kRequests) {
      expected += events_of_request(events);
      const double input = kN * times(slice(kRequest + kCandidate + (pooled ? kEvent : 0), kN), kD);
      expected +=
          candidates * (input + kL * kN * head(events) + kTasks * (times(kN * kD, kH) + times(kH, 1)));
    }
    Rng rng(1);
    CHECK(counted(MixFormer(golden_spec(), sizes(pooled), rng)) == expected);
  }
}

TEST_CASE("FLOPs of UI-MixFormer count the user side once per request") {
  const double users = 2, items = 2;  // 4 · 12 / 22 rounded down, and the rest
  for (const bool decoupled : {true, false}) {
    double expected = 0;
    for (const auto& [candidates, events] : kRequests) {
      const double of_users = decoupled ? 1 : candidates;
      expected += events_of_request(events);
      expected += of_users * users * (times(slice(kRequest, users), kD) + kL * head(events));
      expected += candidates * items * (times(slice(kCandidate, items), kD) + kL * head(events));
      expected +=
          kTasks * (of_users * times(users * kD, kH) + candidates * (times(items * kD, kH) + times(kH, 1)));
    }
    UiMixFormerOptions options;
    static_cast<MixFormerOptions&>(options) = sizes(false);
    options.decoupled = decoupled;
    Rng rng(1);
    CHECK(counted(UiMixFormer(golden_spec(), options, rng)) == expected);
  }
}

TEST_CASE("FLOPs of the MLP are its weights, twice per candidate") {
  Rng rng(1);
  const double width = kRequest + kEvent + kCandidate;
  CHECK(counted(MlpModel(golden_spec(), {.hidden = 6}, rng)) ==
        5 * (times(width, 6) + times(6, 6) + times(6, kTasks)));
}
