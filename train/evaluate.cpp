#include "mixrec/train/evaluate.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"
#include "mixrec/data/prefetcher.h"
#include "mixrec/train/not_finite.h"

#include <algorithm>
#include <cmath>

namespace mixrec {

std::vector<float> logit_shifts(const std::vector<TaskSpec>& tasks) {
  std::vector<float> shifts;
  for (const TaskSpec& task : tasks) shifts.push_back(static_cast<float>(std::log(task.kept_negatives)));
  return shifts;
}

float probability(float logit) { return static_cast<float>(1 / (1 + std::exp(-double{logit}))); }

namespace {

void check_finite(RankingModel& model, const FeatureSet& spec, const RequestBatch& batch,
                  std::span<const float> logits, DType compute) {
  const auto bad = std::find_if(logits.begin(), logits.end(), [](float x) { return !std::isfinite(x); });
  if (bad == logits.end()) return;
  const auto at = static_cast<size_t>(bad - logits.begin());
  Pass replay;
  replay.compute = compute;
  const std::string where = first_not_finite(model, spec, batch, replay);
  MR_FAIL("the prediction of '", spec.tasks[at % spec.tasks.size()].name, "' for row ",
          batch.row.at(at / spec.tasks.size()), " of the data set is not finite", where.empty() ? "" : "; ",
          where);
}

}  // namespace

void for_each_prediction(RankingModel& model, const Dataset& data, Split split,
                         const EvaluateOptions& options,
                         const std::function<void(const RequestBatch&, std::span<const float>)>& f) {
  const NoGrad no_grad;
  const std::vector<TaskSpec>& tasks = data.spec().tasks;
  const std::vector<float> shift = logit_shifts(tasks);
  Loader loader(data, split,
                {.batch_size = options.batch_size,
                 .event_cap = options.max_events,
                 .shuffle = Shuffle::none,
                 .workers = options.workers,
                 .trained_on = options.trained_on});
  const Device device = device_of(model.parameters());
  Prefetcher batches(std::move(loader), device);
  while (const auto batch = batches.next()) {
    Pass pass;
    pass.compute = options.compute;
    const Tensor logits = model.forward(batch->placed, pass);
    const Shape expected{batch->host.candidates, static_cast<int64_t>(tasks.size())};
    MR_CHECK(logits.shape() == expected, "the model's logits are ", logits.shape(), ", expected ", expected,
             " for [candidates, tasks]");
    std::vector<float> values = logits.to_vector();
    check_finite(model, data.spec(), batch->host, values, options.compute);
    for (size_t i = 0; i < values.size(); ++i) values[i] += shift[i % shift.size()];
    f(batch->host, values);
  }
  if (device.is_cuda()) cuda::check_device_errors(device.index);
}

std::vector<BinaryMetrics> evaluate(RankingModel& model, const Dataset& data, Split split,
                                    const EvaluateOptions& options) {
  const size_t tasks = data.spec().tasks.size();
  std::vector<BinaryMeter> meters;
  for (const TaskSpec& task : data.spec().tasks) meters.emplace_back(task.positive_from);
  std::vector<float> column, labels, weights;
  std::vector<int64_t> request;
  int64_t requests_before = 0;
  for_each_prediction(model, data, split, options,
                      [&](const RequestBatch& batch, std::span<const float> logits) {
                        const auto rows = static_cast<size_t>(batch.candidates);
                        const auto* offsets = batch.offsets.data<const int64_t>();
                        request.resize(rows);
                        for (int64_t r = 0; r < batch.requests; ++r)
                          for (int64_t c = offsets[r]; c < offsets[r + 1]; ++c)
                            request[static_cast<size_t>(c)] = requests_before + r;
                        requests_before += batch.requests;
                        column.resize(rows), labels.resize(rows), weights.resize(rows);
                        const auto* label = batch.labels.data<const float>();
                        const auto* weight = batch.weights.data<const float>();
                        for (size_t t = 0; t < tasks; ++t) {
                          for (size_t c = 0; c < rows; ++c) {
                            column[c] = logits[c * tasks + t];
                            labels[c] = label[c * tasks + t];
                            weights[c] = weight[c * tasks + t];
                          }
                          meters[t].add(column, labels, weights, batch.user, request);
                        }
                      });
  std::vector<BinaryMetrics> metrics;
  for (const BinaryMeter& meter : meters) metrics.push_back(meter.compute(options.metrics));
  return metrics;
}

double selection_score(const std::vector<BinaryMetrics>& metrics, const std::string& select_by) {
  const MetricName name = parse_metric(select_by, "train.select_by");
  double sum = 0, judged = 0;
  for (const BinaryMetrics& m : metrics) {
    const double value = goodness(name.kind, m.value(name));
    if (!std::isnan(value)) sum += value, judged += 1;
  }
  return sum / judged;
}

}  // namespace mixrec
