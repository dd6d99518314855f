// The two forms of sequence_attention() against each other, in sizes that the op table has no time for, and the rule that
// chooses between them.
#include "mixrec/ops/attention/sequence_attention.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/rng.h"
#include "mixrec/ops/cast.h"
#include "mixrec/tests/card.h"
#include "mixrec/tests/message_of.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

namespace {

struct Case {
  std::vector<int64_t> events;  // of each request
  int64_t heads, width, hidden;
  double sharpness = 1;  // of the softmax
};

struct Outcome {
  std::vector<Tensor> values;  // m, then the gradients of u, s, gain, gate_up and down
};

Tensor offsets_of(const std::vector<int64_t>& lengths) {
  std::vector<int64_t> at{0};
  for (const int64_t length : lengths) at.push_back(at.back() + length);
  return Tensor::from(at);
}

Tensor normal(Rng& rng, const Shape& shape, double deviation) {
  Tensor x = empty(shape, f64);
  rng.fill_normal(x, 0, deviation);
  return x;
}

// m and all gradients, from inputs rounded to `rounding` and computed in `dtype`.
Outcome evaluate(const Case& c, SequenceForm form, DType rounding, DType dtype, Device device) {
  Rng rng(3);
  const Tensor events = offsets_of(c.events);
  const auto requests = static_cast<int64_t>(c.events.size());
  const int64_t row = c.heads * c.width;
  const auto root = [](int64_t n) { return 1 / std::sqrt(static_cast<double>(n)); };
  std::vector<Tensor> inputs{normal(rng, {requests, c.heads, c.width}, c.sharpness * root(c.width)),
                             normal(rng, {events.to_vector<int64_t>().back(), row}, 1),
                             normal(rng, {row}, .1), normal(rng, {row, 2 * c.hidden}, root(row)),
                             normal(rng, {c.hidden, row}, root(c.hidden))};
  inputs[2] = inputs[2] + 1.0;
  const Tensor upstream = cast(normal(rng, {requests, c.heads, c.width}, 1), rounding);
  // As in training: parameters are f32 where the rows are bf16.
  const auto wide = [](DType of_rows) { return of_rows == bf16 ? f32 : of_rows; };
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool parameter = i >= 2;
    inputs[i] = cast(cast(inputs[i], parameter ? wide(rounding) : rounding), parameter ? wide(dtype) : dtype)
                    .to(device)
                    .requires_grad();
  }
  const Tensor m =
      sequence_attention(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], events.to(device),
                         arange(requests + 1, device), {.one_candidate_each = true, .form = form});
  m.backward(cast(upstream, dtype).to(device));
  Outcome out{{m.detach()}};
  for (const Tensor& x : inputs) out.values.push_back(x.grad());
  return out;
}

double distance(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  double gap = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i) gap += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
  return std::sqrt(gap / size);
}

// A request's events fill several blocks of the CPU, or tiles and steps of a device, the last one in part.
const Case kJagged{{0, 70, 3, 0, 150, 1, 64}, 4, 16, 72}, kWide{{129, 40, 0, 16, 300}, 16, 32, 264, 4};

// In bf16 the absorbed form must not be further from f64 than the plain one, by more than what the draw of the numbers
// makes: it rounds fewer of them.
void check_rounding(const Case& c, Device device) {
  const Outcome exact = evaluate(c, SequenceForm::plain, bf16, f64, kCpu),
                plain = evaluate(c, SequenceForm::plain, bf16, bf16, device),
                absorbed = evaluate(c, SequenceForm::absorbed, bf16, bf16, device);
  for (size_t i = 0; i < exact.values.size(); ++i) {
    CAPTURE(i);
    const double of_plain = distance(plain.values[i], exact.values[i]),
                 of_absorbed = distance(absorbed.values[i], exact.values[i]);
    CAPTURE(of_plain);
    CHECK(of_absorbed <= 1.1 * of_plain);
  }
}

}  // namespace

TEST_CASE("sequence_attention: the absorbed form is the plain one in f64, with all gradients") {
  for (const Case& c : {kJagged, kWide, Case{{16, 16, 16, 16}, 2, 8, 12}, Case{{5, 0, 9}, 3, 5, 7, 20}}) {
    const Outcome plain = evaluate(c, SequenceForm::plain, f64, f64, kCpu),
                  absorbed = evaluate(c, SequenceForm::absorbed, f64, f64, kCpu);
    for (size_t i = 0; i < plain.values.size(); ++i) {
      CAPTURE(i);
      CHECK(distance(absorbed.values[i], plain.values[i]) < 1e-12);
    }
  }
}

TEST_CASE(
    "sequence_attention: layers that read the same events share their norm, and get the same gradients") {
  const Case& c = kJagged;
  const int64_t row = c.heads * c.width, layers = 3;
  const Tensor events = offsets_of(c.events), candidates = arange(std::ssize(c.events) + 1);
  Rng rng(5);
  std::vector<Tensor> inputs{normal(rng, {std::ssize(c.events), c.heads, c.width}, .3),
                             normal(rng, {events.to_vector<int64_t>().back(), row}, 1)};
  for (int64_t l = 0; l < layers; ++l)
    for (const Shape& shape : {Shape{row}, Shape{row, 2 * c.hidden}, Shape{c.hidden, row}})
      inputs.push_back(normal(rng, shape, .2));
  for (Tensor& x : inputs) x.requires_grad();
  const auto gradients = [&](SequenceForm form) {
    for (Tensor& x : inputs) x.zero_grad();
    const Tensor s = inputs[1] * 1.5;  // no leaf: its gradient is gathered from layer to layer
    const SequenceRows rows(s, 1e-3);
    Tensor u = inputs[0];
    for (size_t l = 0; l < static_cast<size_t>(layers); ++l)
      u = u + sequence_attention(u, rows, inputs[2 + 3 * l], inputs[3 + 3 * l], inputs[4 + 3 * l], events,
                                 candidates, {.form = form});
    u.backward(ones(u.shape(), f64));
    std::vector<Tensor> all{u.detach()};
    for (const Tensor& x : inputs) all.push_back(x.grad().clone());
    return all;
  };
  const auto plain = gradients(SequenceForm::plain), absorbed = gradients(SequenceForm::absorbed);
  for (size_t i = 0; i < plain.size(); ++i) {
    CAPTURE(i);
    CHECK(distance(absorbed[i], plain[i]) < 1e-12);
  }
}

TEST_CASE("sequence_attention: the absorbed form rounds no more than the plain one") {
  check_rounding(kJagged, kCpu);
}

TEST_CASE(
    "sequence_attention: nothing is kept where nothing is to be differentiated, and the numbers are the "
    "same") {
  const auto value = [](SequenceForm form) {
    const NoGrad off;
    Rng rng(9);
    const Tensor u = normal(rng, {3, 2, 4}, 1), s = normal(rng, {12, 8}, 1), gain = normal(rng, {8}, 1),
                 gate_up = normal(rng, {8, 12}, 1), down = normal(rng, {6, 8}, 1);
    return sequence_attention(u, s, gain, gate_up, down, offsets_of({7, 0, 5}), arange(4), {.form = form});
  };
  CHECK(distance(value(SequenceForm::absorbed), value(SequenceForm::plain)) < 1e-12);
}

TEST_CASE("sequence_attention: the form follows sizes and the device") {
  const SequenceSizes small{.requests = 512, .events = 262144, .heads = 16, .width = 64, .hidden = 2048};
  CHECK(choose_form(small, bf16, kCard) == SequenceForm::absorbed);
  CHECK(choose_form(small, f32, kCpu) == SequenceForm::absorbed);
  // What a request costs must be saved by its events.
  SequenceSizes sizes = small;
  sizes.events = 2 * sizes.requests;
  CHECK(choose_form(sizes, bf16, kCard) == SequenceForm::plain);
  CHECK(choose_form(sizes, f32, kCpu) == SequenceForm::plain);
  // What more launches cost must be saved too.
  CHECK(choose_form({512, 32768, 8, 32, 512}, bf16, kCard) == SequenceForm::plain);
  CHECK(choose_form({512, 32768, 8, 32, 512}, f32, kCpu) == SequenceForm::absorbed);
  // One request with a long history would leave most of a device idle.
  sizes = small, sizes.requests = 1, sizes.events = 10000;
  CHECK(choose_form(sizes, bf16, kCard) == SequenceForm::plain);
  CHECK(choose_form(sizes, f32, kCpu) == SequenceForm::absorbed);
}

TEST_CASE("sequence_attention: what does not fit is refused, and what the absorbed form cannot do is said") {
  const Tensor u = ones({3, 2, 4}), s = ones({5, 8}), gain = ones({8}), gate_up = ones({8, 12}),
               down = ones({6, 8}), history = offsets_of({2, 0, 3}), candidates = arange(4);
  const auto message = [&](const Tensor& events, const Tensor& wide, const Tensor& narrow, const Tensor& each,
                           SequenceAttentionOptions options = {}) {
    return message_of([&] { sequence_attention(u, events, gain, wide, narrow, history, each, options); });
  };
  const auto says = [](const std::string& text, const char* part) {
    CHECK_MESSAGE(text.find(part) != std::string::npos, text);
  };
  says(message(ones({5, 9}), gate_up, down, candidates), "events are 9 wide, 2 heads of 4 need 8");
  says(message(s, ones({8, 11}), down, candidates), "gate_up is [8, 11]");
  says(message(s, gate_up, ones({5, 8}), candidates), "down is [5, 8]");
  says(message(ones({5, 8}, f64), gate_up, down, candidates), "u is f32 and s is f64");
  says(message(s, gate_up, down, offsets_of({2, 0, 1}), {.form = SequenceForm::absorbed}),
       "one candidate each");
  says(message(s, gate_up, down, candidates, {.recompute = true, .form = SequenceForm::absorbed}),
       "recomputes nothing in blocks");
  CHECK_NOTHROW(sequence_attention(u, s, gain, gate_up, down, history, offsets_of({2, 0, 1})));
}

TEST_CASE("cuda: sequence_attention: the absorbed form rounds no more than the plain one") {
  if (!has_card("both forms of sequence_attention on a card")) return;
  for (const Case& c : {kJagged, kWide, Case{{512, 512, 100}, 16, 64, 2048}, Case{{10000}, 8, 32, 512}})
    check_rounding(c, kCard);
}

TEST_CASE("cuda: sequence_attention: the absorbed form has the same bits in every run") {
  if (!has_card("bits of sequence_attention on a card")) return;
  const Outcome once = evaluate(kWide, SequenceForm::absorbed, bf16, bf16, kCard),
                again = evaluate(kWide, SequenceForm::absorbed, bf16, bf16, kCard);
  for (size_t i = 0; i < once.values.size(); ++i)
    CHECK(once.values[i].to_vector() == again.values[i].to_vector());
}
