#include "mixrec/ops/attention/attend.h"
#include "mixrec/ops/attention/cross_attention.h"
#include "mixrec/ops/reference.h"
#include "mixrec/tests/op_cases.h"

#include <cmath>

namespace mixrec::test {
namespace {

using Inputs = std::vector<Tensor>;

struct Layout {
  std::string name;
  std::vector<int64_t> events, candidates;  // of each request
  int64_t heads, width;
};

const std::vector<Layout>& layouts() {
  static const std::vector<Layout> all = {
      {"one candidate a request", {5, 0, 3, 17}, {1, 1, 1, 1}, 2, 8},
      {"groups, none and no history", {3, 9, 0, 1, 4}, {2, 5, 3, 0, 1}, 3, 5},
      {"several blocks of events", {71, 130}, {1, 2}, 1, 12},
      {"several groups of candidates", {9}, {37}, 2, 3},
      {"long histories of one candidate", {300, 2, 0, 129}, {1, 1, 1, 1}, 3, 8},
      {"several candidates beside none", {4, 140, 0, 0}, {0, 2, 2, 0}, 2, 8},
      {"no request", {}, {}, 2, 4},
      {"no event", {0, 0}, {1, 2}, 2, 4},
  };
  return all;
}

// For the tensor cores of a card: heads of whole 16 elements, more candidates than requests.
const std::vector<Layout>& wide_layouts() {
  static const std::vector<Layout> all = {
      {"heads of 16, up to a tile and a row of events", {0, 1, 65}, {2, 1, 17}, 3, 16},
      {"heads of 64, a tile and two rows of candidates", {64, 20}, {2, 66}, 2, 64},
  };
  return all;
}

}  // namespace

void add_attend_cases(std::vector<OpCase>& cases) {
  for (const Layout& layout : wide_layouts()) {
    const Tensor events = offsets_of(layout.events), candidates = offsets_of(layout.candidates);
    const int64_t n = layout.heads, width = layout.width;
    cases.push_back(
        {"attend", layout.name,
         [=](Rng& rng) -> Inputs {
           const double most = 2 / std::sqrt(width);  // so that many events count
           return {uniform(rng, {candidates.to_vector<int64_t>().back(), n, width}, -most, most),
                   normal(rng, {events.to_vector<int64_t>().back(), n * width})};
         },
         [=](const Inputs& in) {
           return attend(in[0], in[1], beside(in[0], events), beside(in[0], candidates));
         },
         [=](const Plains& in) { return expected::attend(in[0], in[1], host(events), host(candidates)); }});
  }
  for (const Layout& layout : layouts()) {
    const Tensor events = offsets_of(layout.events), candidates = offsets_of(layout.candidates);
    const int64_t n = layout.heads, width = layout.width;
    cases.push_back(
        {"attend", layout.name,
         [=](Rng& rng) -> Inputs {
           return {normal(rng, {candidates.to_vector<int64_t>().back(), n, width}),
                   normal(rng, {events.to_vector<int64_t>().back(), n * width})};
         },
         [=](const Inputs& in) {
           return attend(in[0], in[1], beside(in[0], events), beside(in[0], candidates));
         },
         [=](const Plains& in) { return expected::attend(in[0], in[1], host(events), host(candidates)); }});
    const auto inputs = [=](Rng& rng) -> Inputs {
      const int64_t queries = 4;  // their width
      return {normal(rng, {candidates.to_vector<int64_t>().back(), n, queries}),
              uniform(rng, {n, width, queries}, -.5, .5), uniform(rng, {n, width, queries}, -.5, .5),
              normal(rng, {events.to_vector<int64_t>().back(), n * width})};
    };
    const auto literal = [=](const Plains& in) {
      return expected::cross_attention(in[0], in[1], in[2], in[3], host(events), host(candidates));
    };
    cases.push_back({"cross_attention", layout.name, inputs,
                     [=](const Inputs& in) {
                       return cross_attention(in[0], in[1], in[2], in[3], beside(in[0], events),
                                              beside(in[0], candidates));
                     },
                     literal});
    cases.push_back({"cross_attention", "literal, " + layout.name, inputs,
                     [=](const Inputs& in) {
                       return reference::cross_attention(in[0], in[1], in[2], in[3], beside(in[0], events),
                                                         beside(in[0], candidates));
                     },
                     literal, /*no_gradient=*/"", "the reference rounds after each of many plain ops"});
  }
}

}  // namespace mixrec::test
