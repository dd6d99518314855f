#include "mixrec/train/device_choice.h"

#include "mixrec/core/cuda.h"
#include "mixrec/data/prefetcher.h"
#include "mixrec/models/list.h"
#include "mixrec/nn/linear.h"
#include "mixrec/ops/loss.h"
#include "mixrec/ops/reduce.h"
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

  TEST_CASE("in bf16 every model is close to itself in f32, and its logits and gradients are f32") {
    const TemporaryFolder folder;
    const Dataset data = open_data(small_config(write_small_data(folder)).data);
    Loader loader(data, Split::train, {.batch_size = 64, .workers = 0});
    const RequestBatch batch = *loader.next();
    for (const ModelEntry& entry : model_list()) {
      CAPTURE(entry.name);
      Rng rng(3);
      const auto model = entry.build(data.spec(), "{}", rng);
      struct Result {
        double loss;
        std::vector<double> gradient;
      };
      const auto run = [&](DType compute) {
        Pass pass;
        pass.compute = compute;
        const Tensor logits = model->forward(batch, pass);
        CHECK(logits.dtype() == f32);
        const Tensor loss = sum(bce_with_logits_per_task(logits, batch.labels, batch.weights));
        loss.backward();
        Result result{loss.item(), {}};
        for (const Parameter& p : model->parameters()) {
          if (p.kind == ParameterKind::buffer) continue;
          REQUIRE(p.value.grad().defined());
          CHECK(p.value.grad().dtype() == f32);
          for (const double g : p.value.grad().to_vector<double>()) result.gradient.push_back(g);
          Tensor(p.value).zero_grad();
        }
        return result;
      };
      const Result high = run(f32), low = run(bf16);
      CHECK(low.loss == doctest::Approx(high.loss).epsilon(1e-2));
      double gap = 0, size = 0;
      for (size_t i = 0; i < high.gradient.size(); ++i)
        gap += std::pow(low.gradient[i] - high.gradient[i], 2), size += std::pow(high.gradient[i], 2);
      CHECK(gap > 0);
      CHECK(std::sqrt(gap / size) < 3e-2);
    }
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
