#include "mixrec/train/verify.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"
#include "mixrec/core/metrics.h"
#include "mixrec/data/loader.h"
#include "mixrec/data/raw_requests.h"
#include "mixrec/models/list.h"
#include "mixrec/train/evaluate.h"
#include "mixrec/train/load_model.h"
#include "mixrec/train/run_data.h"
#include "mixrec/train/serve/scorer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>

namespace mixrec {

namespace {

// f32: other orders of summation.  bf16: eight bits of every activation, through all layers.
constexpr VerifyBounds kSame{0, 0}, kF32{512, 1e-5}, kCudaF32{2048, 1e-4}, kBf16{1 << 20, 5e-3};

class Verifier {
 public:
  Verifier(const VerifyArguments& arguments, const std::vector<ModelEntry>& own_models)
      : arguments_(arguments),
        own_models_(own_models),
        folder_(RunFolder::resume(arguments.run)),
        config_(load_config(folder_.config_path(), {})) {
    record_ = read_record(folder_);
    data_ =
        open_run_data(folder_, record_, config_, find_run_data(folder_, record_, config_, arguments.data));
    loaded_ = load_model(folder_, record_, config_, data_.spec(), kCpu, own_models);
    shift_ = logit_shifts(data_.spec().tasks);
    read_rows();
  }

  std::vector<VerifyRow> run() {
    const NoGrad no_grad;
    RankingModel& model = *loaded_.model;
    reference_ = forward(model, kCpu, f32, false);
    compare("expanded", kF32, forward(model, kCpu, f32, true));
    Pass pass;
    const bool has_user_side = model.user_side(requests_.front(), pass) != nullptr;
    if (const auto& options = find_model(config_.model.name, own_models_).default_options;
        options.find("\"decoupled\"") != std::string::npos) {
      const Config masked =
          load_config(folder_.config_path(), std::vector<std::string>{"model.decoupled=false"});
      const auto other = load_model(folder_, record_, masked, data_.spec(), kCpu, own_models_);
      compare("masked", kF32, forward(*other.model, kCpu, f32, true));
    }
    if (has_user_side) {
      compare("decoupled", kF32, by_request([&](const RequestBatch& request, size_t) {
                return probabilities(model.item_side(*model.user_side(request, pass), request, pass));
              }));
    }
    score("cpu", "f32", kF32);
    compare("evaluation bf16", kBf16, forward(model, kCpu, bf16, false));
    score("cpu", "bf16", kBf16);
    if (cuda::device_count() == 0) {
      for (const char* way : {"evaluation CUDA", "evaluation CUDA bf16", "scorer CUDA", "recorded CUDA",
                              "scorer CUDA bf16", "recorded CUDA bf16"})
        rows_.push_back({.way = way, .skipped = cuda::unavailable_reason()});
      return rows_;
    }
    const Device card{Device::Type::cuda, 0};
    to_device(model.parameters(), card);
    compare("evaluation CUDA", kCudaF32, forward(model, card, f32, false));
    compare("evaluation CUDA bf16", kBf16, forward(model, card, bf16, false));
    score("cuda", "f32", kCudaF32);
    score("cuda", "bf16", kBf16);
    return rows_;
  }

 private:
  using Probabilities = std::vector<float>;  // rows x tasks

  void read_rows() {
    LoaderOptions options;
    options.batch_size = 512;
    options.event_cap = 4 * config_.data.max_events;
    options.shuffle = Shuffle::none;
    options.trained_on = loaded_.trained_on;
    Loader loader(data_, Split::test, options);
    while (rows_read_ < arguments_.rows) {
      auto batch = loader.next();
      if (!batch) break;
      rows_read_ += batch->candidates;
      batches_.push_back(std::move(*batch));
    }
    options.batch_size = 1;  // a larger request is a batch by itself
    Loader one_by_one(data_, Split::test, options);
    for (int64_t rows = 0; rows < rows_read_; rows += requests_.back().candidates)
      requests_.push_back(*one_by_one.next());
    raw_ = raw_requests(data_, Split::test, loaded_.trained_on, rows_read_);
    MR_CHECK(raw_.size() == requests_.size(), "the log tells ", raw_.size(), " requests, the packed form ",
             requests_.size());
  }

  Probabilities probabilities(const Tensor& logits) const {
    Probabilities p = logits.to_vector();
    for (size_t i = 0; i < p.size(); ++i) p[i] = probability(p[i] + shift_[i % shift_.size()]);
    return p;
  }

  Probabilities forward(RankingModel& model, Device device, DType compute, bool expanded) const {
    Probabilities all;
    for (const RequestBatch& batch : batches_) {
      Pass pass;
      pass.compute = compute;
      const RequestBatch placed = (expanded ? batch.expanded() : batch).to(device);
      const Probabilities some = probabilities(model.forward(placed, pass));
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }

  Probabilities by_request(const std::function<Probabilities(const RequestBatch&, size_t)>& score) const {
    Probabilities all;
    for (size_t r = 0; r < requests_.size(); ++r) {
      const Probabilities some = score(requests_[r], r);
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }

  // Twice: keys are new the first time, and known the second time.
  void score(const std::string& device, const std::string& precision, const VerifyBounds& bounds) {
    const Scorer scorer(arguments_.run, {.device = device, .precision = precision}, own_models_);
    const auto once = [&] {
      return by_request([&](const RequestBatch&, size_t r) {
        return scorer.score(raw_[r], "request " + std::to_string(r)).values();
      });
    };
    const std::string suffix =
        std::string(device == "cpu" ? "" : " CUDA") + (precision == "f32" ? "" : " " + precision);
    const Probabilities first = once(), second = once();
    compare("scorer" + suffix, bounds, first);
    if (device != "cpu") {
      compare("recorded" + suffix, bounds,
              by_request([&](const RequestBatch&, size_t r) { return scorer.score(raw_[r]).values(); }));
    }
    if (scorer.cache_stats().hits > 0)
      compare("cached" + suffix + " with scorer" + suffix, kSame, second, first);
  }

  void compare(const std::string& way, const VerifyBounds& bounds, const Probabilities& p) {
    compare(way, bounds, p, reference_);
  }

  void compare(const std::string& way, const VerifyBounds& bounds, const Probabilities& p,
               const Probabilities& with) {
    MR_CHECK(p.size() == with.size(), way, " gave ", p.size(), " probabilities, expected ", with.size());
    VerifyRow row{.way = way, .bounds = bounds};
    for (size_t i = 0; i < p.size(); ++i) row.ulps = std::max(row.ulps, ulps_between(p[i], with[i]));
    const std::vector<double> a = aucs(p), b = aucs(with);
    for (size_t t = 0; t < a.size(); ++t)
      if (!std::isnan(a[t]) || !std::isnan(b[t])) row.auc = std::max(row.auc, std::abs(a[t] - b[t]));
    rows_.push_back(std::move(row));
  }

  std::vector<double> aucs(const Probabilities& p) const {
    const size_t tasks = shift_.size();
    std::vector<double> all;
    for (size_t t = 0; t < tasks; ++t) {
      std::vector<float> scores, labels, weights;
      for (const RequestBatch& batch : batches_)
        for (auto c = t; c < static_cast<size_t>(batch.candidates) * tasks; c += tasks) {
          labels.push_back(batch.labels.data<const float>()[c]);
          weights.push_back(batch.weights.data<const float>()[c]);
        }
      for (size_t i = t; i < p.size(); i += tasks) scores.push_back(p[i]);
      all.push_back(auc(scores, labels, weights));
    }
    return all;
  }

  const VerifyArguments& arguments_;
  const std::vector<ModelEntry>& own_models_;
  RunFolder folder_;
  RunRecord record_;
  Config config_;
  Dataset data_;
  LoadedModel loaded_;
  std::vector<float> shift_;
  std::vector<RequestBatch> batches_, requests_;  // the same rows
  std::vector<ScoreRequest> raw_;                 // the requests in the log's own cells
  int64_t rows_read_ = 0;
  Probabilities reference_;
  std::vector<VerifyRow> rows_;
};

}  // namespace

double ulps_between(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<double>::infinity();
  return std::abs(static_cast<double>(std::bit_cast<int32_t>(a)) - std::bit_cast<int32_t>(b));
}

std::vector<VerifyRow> verify(const VerifyArguments& arguments, const std::vector<ModelEntry>& own_models) {
  return Verifier(arguments, own_models).run();
}

int run_verify(const VerifyArguments& arguments, const std::vector<ModelEntry>& own_models) {
  bool holds = true;
  int skipped = 0;
  std::printf("%-36s %12s %12s %12s %12s\n", "with evaluation on the host in f32", "ulps", "bound", "AUC",
              "bound");
  for (const VerifyRow& row : verify(arguments, own_models)) {
    if (!row.skipped.empty()) {
      std::printf("%-36s skipped: %s\n", row.way.c_str(), row.skipped.c_str());
      ++skipped;
      continue;
    }
    holds = holds && row.holds();
    std::printf("%-36s %12.0f %12.0f %12.3g %12.3g%s\n", row.way.c_str(), row.ulps, row.bounds.ulps, row.auc,
                row.bounds.auc, row.holds() ? "" : "  FAILED");
  }
  std::printf("%s; %d skipped\n", holds ? "all within bounds" : "out of bounds", skipped);
  return holds ? 0 : 1;
}

}  // namespace mixrec
