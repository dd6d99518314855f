#include "mixrec/train/device_choice.h"

#include "mixrec/core/cuda.h"
#include "mixrec/data/prefetcher.h"
#include "mixrec/nn/linear.h"
#include "mixrec/tests/message_of.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/evaluate.h"

#include <cmath>
#include <doctest/doctest.h>

using namespace mixrec;
using namespace mixrec::test;

TEST_SUITE("device and precision") {
  TEST_CASE("names of devices") {
    CHECK(parse_device("cpu") == kCpu);
    CHECK(parse_device("cuda") == Device{Device::Type::cuda, 0});
    CHECK(parse_device("cuda:12") == Device{Device::Type::cuda, 12});
    for (const char* wrong : {"", "gpu", "cuda:", "cuda:-1", "cuda:1x", "CPU"}) CHECK(!parse_device(wrong));
    CHECK(choose_device("cpu") == kCpu);
    CHECK(message_of([] { choose_device("gpu"); }).find("known are auto, cpu, cuda and cuda:N") !=
          std::string::npos);
    CHECK(message_of([] { choose_precision("f16"); }).find("known are f32 and bf16") != std::string::npos);
    CHECK(device_line(kCpu, f32).starts_with("device cpu, "));
  }

  TEST_CASE("a card that is not there is refused with the reason, before anything is read or written") {
    const std::string missing = "cuda:" + std::to_string(cuda::device_count());
    const std::string message = message_of([&] { choose_device(missing); });
    CAPTURE(message);
    const std::string reason = cuda::device_count() == 0
                                   ? cuda::unavailable_reason()
                                   : "this machine has " + std::to_string(cuda::device_count());
    CHECK(!reason.empty());
    CHECK(message.find(reason) != std::string::npos);
    const TemporaryFolder folder;
    const ChildResult child = run_mixrec(
        {"train", "--data", folder / "none", "--out", folder / "run", "--device", missing}, folder);
    CHECK(child.code == 1);
    CHECK(child.err.find(reason) != std::string::npos);
    CHECK_FALSE(std::filesystem::exists(folder / "run"));
    CHECK(run_mixrec({"train", "--data", folder / "none", "--device", "gpu"}, folder).code == 2);
  }

  TEST_CASE("the first line of a log says where and in what a run computes") {
    const TemporaryFolder folder;
    Config config = small_config(write_small_data(folder));
    config.train.max_steps = 5;
    write_file(folder / "c.json", dump_config(config));
    const ChildResult child = run_mixrec(
        {"train", "--config", folder / "c.json", "--out", folder / "run", "--device", "auto"}, folder);
    CAPTURE(child.err);
    REQUIRE(child.code == 0);
    const std::string device = cuda::device_count() > 0 ? "\ndevice cuda:0, " : "\ndevice cpu, ";
    CHECK(("\n" + child.err).find(device) != std::string::npos);
    CHECK(child.err.find(", f32") != std::string::npos);
  }

  TEST_CASE(
      "a model moves with its handles and forgets its gradients; a move to where it is changes nothing") {
    Rng rng(1);
    Linear linear(3, 2, rng);
    const std::vector<Parameter> before = parameters(linear);
    const void* memory = linear.weight.raw_data();
    to_device(linear, kCpu);
    CHECK(linear.weight.raw_data() == memory);
    CHECK(device_of(before) == kCpu);
    CHECK(device_of({}) == kCpu);
  }

  TEST_CASE("a prefetcher gives the loader's batches, positions and ends") {
    const TemporaryFolder folder;
    const Config config = small_config(write_small_data(folder));
    const Dataset data = open_data(config.data);
    const LoaderOptions options{.batch_size = 50, .workers = 0};
    Loader loader(data, Split::train, options);
    Prefetcher batches(Loader(data, Split::train, options), kCpu);
    CHECK(batches.batches() == loader.batches());
    for (const int64_t from : {0, 3}) {
      loader.start(1, from), batches.start(1, from);
      CHECK(batches.position() == loader.position());
      while (const auto expected = loader.next()) {
        const auto got = batches.next();
        REQUIRE(got.has_value());
        CHECK(got->host.row == expected->row);
        CHECK(got->placed.row == expected->row);
        CHECK(got->placed.labels.raw_data() == got->host.labels.raw_data());
        CHECK(batches.position() == loader.position());
      }
      CHECK(!batches.next());
    }
  }
}
