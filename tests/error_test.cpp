#include "mixrec/core/error.h"

#include <doctest/doctest.h>
#include <string>
#include <vector>

TEST_CASE("an error names the op, the values and the place") {
  using namespace mixrec;
  try {
    MR_OP("matmul");
    MR_CHECK(2 == 3, "inner sizes differ: ", 2, " x ", 3);
    FAIL("did not throw");
  } catch (const Error& error) {
    CHECK(std::string(error.what()).starts_with("[matmul] inner sizes differ: 2 x 3 (tests/error_test.cpp:"));
  }
  CHECK(std::string(detail::current_op()).empty());
}

TEST_CASE("a near name is suggested, a far one is not") {
  const std::vector<std::string> names{"learning_rate", "weight_decay"};
  CHECK(mixrec::nearest_name("lerning_rate", names) == "learning_rate");
  CHECK(mixrec::nearest_name("batch", names).empty());
}
