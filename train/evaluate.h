// A model on one part of a data set: probabilities, and the metrics of every task.
#pragma once

#include "mixrec/core/metrics.h"
#include "mixrec/data/dataset.h"
#include "mixrec/models/model.h"

#include <concepts>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace mixrec {

struct EvaluateOptions {
  // Which rows the model was fitted on: histories of later rows reach no further.
  TrainedOn trained_on = TrainedOn::training_part;
  int64_t batch_size = 2048;  // candidates
  int64_t max_events = 0;     // history events in one batch at most; 0 = no cap
  int workers = 1;            // threads that assemble batches
  DType compute = f32;        // see Pass
  std::vector<MetricName> metrics = parse_metrics_list(default_metrics(), "metrics");
};

// Where a task trains on a share w of its negatives, logits are corrected to the rate of the whole log:
//   p = p' / (p' + (1 - p') / w),  which is logit' + log w
std::vector<float> logit_shifts(const std::vector<TaskSpec>& tasks);  // log w
float probability(float logit);

// Calls f(batch, logits) for every batch of the part, in the packed order; logits [C, tasks] row by row.  The
// model computes where its parameters are; f is given the host's copy of the batch.  Every row of the part comes
// once, none is thinned out or forgotten.  Logits are corrected.  Throws where one is not finite, naming its row
// and the first tensor that is not.
void for_each_prediction(RankingModel& model, const Dataset& data, Split split,
                         const EvaluateOptions& options,
                         const std::function<void(const RequestBatch&, std::span<const float>)>& f);

// One entry per task of data.spec().  Costs the forward passes and 32 bytes per row and task.
std::vector<BinaryMetrics> evaluate(RankingModel& model, const Dataset& data, Split split,
                                    const EvaluateOptions& options = {});
template <class M>
requires(!std::derived_from<M, RankingModel>) std::vector<BinaryMetrics> evaluate(
    M& model, const Dataset& data, Split split, const EvaluateOptions& options = {}) {
  ModelHolder<M&> holder(model);
  return evaluate(static_cast<RankingModel&>(holder), data, split, options);
}

// Mean over tasks of the goodness (core/metric_name.h) of a metric: larger is better, so log loss comes with a minus.
// Tasks that have no such value are left out; NaN when all have none.
double selection_score(const std::vector<BinaryMetrics>& metrics, const std::string& select_by);

}  // namespace mixrec
