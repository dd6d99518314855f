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

TEST_CASE("an error about what a user gave has no place, one about a call has") {
  using mixrec::detail::fail;
  const auto said = [](const char* file) {
    try {
      fail(file, 7, "sentence");
    } catch (const mixrec::Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  for (const char* file :
       {"data/csv_reader.cpp", "data/packing/prepare.cpp", "train/config.cpp", "train/serve/score_lines.cpp",
        "core/files/safetensors.cpp", "build/include/mixrec/models/options.h", "optim/options.cpp",
        "/usr/include/mixrec/data/schema.h"})
    CHECK(said(file) == "sentence");
  CHECK(said("ops/attention/attend.cpp") == "sentence (ops/attention/attend.cpp:7)");
  CHECK(said("core/files.cpp") == "sentence (core/files.cpp:7)");
  CHECK(said("build/include/mixrec/core/tensor.h") == "sentence (core/tensor.h:7)");
  CHECK(said("/opt/include/mixrec/nn/pass.h") == "sentence (nn/pass.h:7)");
  CHECK(said("/home/of/somebody/src/my_model.cpp") == "sentence (src/my_model.cpp:7)");
}
