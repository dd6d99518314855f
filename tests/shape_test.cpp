// Sizes that no tensor can have are refused when a shape or a view is made.
#include "mixrec/core/shape.h"

#include "mixrec/core/storage.h"
#include "mixrec/ops/layout.h"
#include "mixrec/tests/message_of.h"

#include <doctest/doctest.h>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace mixrec;
using mixrec::test::message_of;

namespace {

constexpr int64_t kLarge = int64_t{1} << 40, kMost = INT64_MAX;

// One element, seen as many.
Tensor stretched(const Shape& shape) {
  Shape still = shape;
  for (int i = 0; i < still.ndim(); ++i) still.set(i, 0);
  return Tensor::view(ones({1}).storage(), 0, shape, still, f32);
}

}  // namespace

TEST_CASE("shapes: products of sizes, bytes and offsets are checked for overflow") {
  const Tensor row = ones({6});
  const std::pair<std::function<void()>, const char*> cases[] = {
      {[] {
         empty({kLarge, kLarge});
       },
       "[1099511627776, 1099511627776] has more bytes than can be counted"},
      {[] {
         empty({int64_t{1} << 32, int64_t{1} << 32, 2}, u8);
       },
       "than can be counted"},
      {[] { zeros({kMost}, f64); }, "than can be counted"},
      {[] { full({int64_t{1} << 62}, 1); }, "than can be counted"},
      {[] {
         empty({kLarge, kLarge, 0});
       },
       "than can be counted"},
      {[] {
         empty({0, kLarge, kLarge}, u8);
       },
       "than can be counted"},
      {[] { arange(int64_t{1} << 61); }, "than can be counted"},
      {[] {
         (void)Shape({kLarge, kLarge}).numel();
       },
       "more elements than can be counted"},
      {[] {
         (void)dense_strides({2, kLarge, kLarge});
       },
       "the strides of a shape"},
      {[] {
         stretched({kLarge, kLarge});
       },
       "than can be counted"},
      {[] { stretched({int64_t{1} << 62}); }, "than can be counted"},
      {[&] {
         row.reshape({kLarge, kLarge, -1});
       },
       "the sizes of a reshape"},
      {[&] {
         row.reshape({int64_t{1} << 32, int64_t{1} << 32, 6});
       },
       "can be counted"},
      {[&] {
         row.reshape({0, -1});
       },
       "cannot tell what -1 is"},
      {[&] {
         empty({0, 3}).reshape({0, -1});
       },
       "cannot tell what -1 is"},
      {[&] {
         row.reshape({-1, 4});
       },
       "cannot reshape [6] to"},
      {[&] { row.narrow(0, 1, kMost); }, "outside dimension 0 of [6]"},
      {[&] { row.narrow(0, kMost, kMost); }, "outside dimension 0 of [6]"},
      {[&] { row.narrow(0, 7, 0); }, "outside dimension 0 of [6]"},
      {[&] {
         concat({stretched({int64_t{1} << 58}), stretched({int64_t{1} << 58}), stretched({int64_t{1} << 58}),
                 stretched({int64_t{1} << 58}), stretched({int64_t{1} << 58})},
                0);
       },
       "can be counted"},
      {[&] {
         split(row, 0, {kMost, kMost, 8});
       },
       "the sizes of a split"},
      {[&] {
         (void)(stretched({kLarge, 1}) * stretched({1, kLarge}));
       },
       "than can be counted"}};
  for (size_t i = 0; i < std::size(cases); ++i) {
    CAPTURE(i);
    const std::string message = message_of(cases[i].first);
    CAPTURE(message);
    CHECK(message.find(cases[i].second) != std::string::npos);
  }
  CHECK(Shape({kLarge, kLarge, 0}).numel() == 0);
}

TEST_CASE("shapes: a view outside its storage is refused") {
  const auto storage = std::make_shared<Storage>(24, kCpu);  // six f32
  const auto view = [&](int64_t offset, const Shape& shape, const Shape& strides) {
    return message_of([&] { Tensor::view(storage, offset, shape, strides, f32); });
  };
  CHECK(view(0, {2, 3}, {3, 1}).empty());
  CHECK(view(2, {4}, {1}).empty());
  CHECK(view(6, {0, 3}, {3, 1}).empty());
  CHECK(view(0, {3, 3}, {3, 1}).find("does not lie in a block of 6 elements") != std::string::npos);
  CHECK(view(3, {4}, {1}).find("does not lie") != std::string::npos);
  CHECK(view(-1, {2}, {1}).find("offset -1") != std::string::npos);
  CHECK(view(0, {2}, {-1}).find("does not lie") != std::string::npos);
  CHECK(view(0, {3, 3}, {kMost, kMost}).find("does not lie") != std::string::npos);
  CHECK(view(kMost, {2}, {1}).find("does not lie") != std::string::npos);
  CHECK(message_of([&] { Tensor::part(storage, 8, {4}, f32); }).empty());
  CHECK(message_of([&] { Tensor::part(storage, 8, {5}, f32); }).find("lies outside a block of 24") !=
        std::string::npos);
  CHECK(message_of([&] { Tensor::part(storage, 32, {1}, f32); }).find("lies outside") != std::string::npos);
}
