// Rows of the table for ops/attention/sequence_attention.h, both forms.
#include "mixrec/ops/attention/sequence_attention.h"
#include "mixrec/ops/reference.h"
#include "mixrec/tests/op_cases.h"

#include <cmath>

namespace mixrec::test {
namespace {

using Inputs = std::vector<Tensor>;

struct Layout {
  std::string name;
  std::vector<int64_t> events, candidates;  // of each request
  int64_t heads, width, hidden;
};

std::vector<int64_t> one_each(size_t requests) { return std::vector<int64_t>(requests, 1); }

Inputs random_inputs(const Layout& layout, Rng& rng) {
  const int64_t events = host(offsets_of(layout.events)).back(),
                candidates = host(offsets_of(layout.candidates)).back();
  const int64_t n = layout.heads, w = layout.width, f = layout.hidden, row = n * w;
  return {normal(rng, {candidates, n, w}) / std::sqrt(static_cast<double>(w)), normal(rng, {events, row}),
          normal(rng, {row}) / 4.0 + 1.0, normal(rng, {row, 2 * f}) / std::sqrt(static_cast<double>(row)),
          normal(rng, {f, row}) / std::sqrt(static_cast<double>(f))};
}

// A row of the table; on a device the absorbed form is there for bf16 alone.
OpCase row_of(const std::string& label, const Layout& layout, SequenceAttentionOptions options,
              const std::string& no_low_precision = "") {
  const Tensor events = offsets_of(layout.events), candidates = offsets_of(layout.candidates);
  return {"sequence_attention",
          label + layout.name,
          [=](Rng& rng) { return random_inputs(layout, rng); },
          [=](const Inputs& in) {
            SequenceAttentionOptions given = options;
            if (in[0].device().is_cuda() && in[0].dtype() != bf16) given.form = SequenceForm::automatic;
            return sequence_attention(in[0], in[1], in[2], in[3], in[4], beside(in[0], events),
                                      beside(in[0], candidates), given);
          },
          [=](const Plains& in) {
            const Plain z = expected::ffn(expected::rms_norm(in[1], &in[2], 1e-6), in[3], in[4]);
            return expected::attend(in[0], expected::plus(in[1], z), host(events), host(candidates));
          },
          /*no_gradient=*/"",
          no_low_precision};
}

}  // namespace

void add_sequence_attention_cases(std::vector<OpCase>& cases) {
  const std::string two_ops =
      "h is rounded, and over few events gradients cancel; its two ops have rows of their own";
  const Layout layouts[] = {
      {"jagged, none and one event", {5, 0, 3, 17, 1}, one_each(5), 2, 16, 24},
      {"even histories", {16, 16, 16}, one_each(3), 4, 16, 32},
      {"16 heads, several tiles of events", {65, 130, 64}, one_each(3), 16, 16, 40},
      {"a wide network, several blocks of columns", {33, 7}, one_each(2), 3, 32, 264},
  };
  for (const Layout& layout : layouts) {
    cases.push_back(
        row_of("absorbed, ", layout, {.one_candidate_each = true, .form = SequenceForm::absorbed}));
    cases.push_back(row_of("plain, ", layout, {.form = SequenceForm::plain}, two_ops));
    OpCase composed = row_of("composed, ", layout, {}, "the reference rounds after each of many plain ops");
    composed.run = [events = offsets_of(layout.events),
                    candidates = offsets_of(layout.candidates)](const Inputs& in) {
      return reference::sequence_attention(in[0], in[1], in[2], in[3], in[4], events, candidates);
    };
    cases.push_back(composed);
  }
  cases.push_back(
      row_of("", {"several candidates per request", {4, 0, 6}, {2, 1, 3}, 2, 8, 12}, {}, two_ops));
  cases.push_back(row_of("", {"no event", {0, 0}, one_each(2), 2, 8, 12}, {.one_candidate_each = true}));
  cases.push_back(row_of("", {"in blocks", {4, 0, 6}, one_each(3), 2, 8, 12}, {.recompute = true}, two_ops));
  cases.push_back(row_of("", {"odd sizes, by the rule", {40, 21, 0, 33}, one_each(4), 3, 5, 7}, {}, two_ops));
}

}  // namespace mixrec::test
