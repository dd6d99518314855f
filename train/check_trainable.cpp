#include "mixrec/train/check_trainable.h"

#include "mixrec/core/error.h"
#include "mixrec/data/label_counts.h"

#include <functional>

namespace mixrec {

namespace {

std::string dates(const Dataset& data) {
  std::string first, last;
  for (const SplitStats& part : data.manifest().splits) {
    if (part.first_day.empty()) continue;
    if (first.empty() || part.first_day < first) first = part.first_day;
    if (part.last_day > last) last = part.last_day;
  }
  if (first.empty()) return concat_message("the log has ", data.manifest().rows, " rows");
  return concat_message("the log runs from ", first, " to ", last);
}

void check_rows(const Dataset& data, Split split, const char* otherwise) {
  MR_CHECK(data.stats(split).rows > 0, "the split leaves no ", split_name(split), " row: ", dates(data),
           otherwise);
}

// "the label 'click' is 0 in all 20 test rows"
std::string one_class_text(const std::string& task, const LabelCounts& counts, Split split) {
  if (counts.rows == 0)
    return concat_message("no ", split_name(split), " row has a label '", task, "' that counts");
  return concat_message("the label '", task, "' is ", counts.lowest, " in all ", counts.rows, " ",
                        split_name(split), " rows");
}

// What the optimiser sees of one task.
void check_training(const Dataset& data, Split split) {
  const std::vector<TaskSpec>& tasks = data.spec().tasks;
  const std::vector<LabelCounts> counts = count_labels(data, split, true);
  for (size_t t = 0; t < tasks.size(); ++t) {
    const TaskSpec& task = tasks[t];
    MR_CHECK(counts[t].fractional == 0 || task.kept_negatives == 1, "the task '", task.name, "' has ",
             counts[t].fractional, " labels between 0 and 1 and keeps a share ", task.kept_negatives,
             " of its negatives: kept_negatives needs labels of 0 and 1");
    if (!counts[t].one_class()) continue;
    const std::string text = one_class_text(task.name, counts[t], split);
    const bool thinned = task.kept_negatives < 1 && !count_labels(data, split, false)[t].one_class();
    MR_CHECK(!thinned, text, " that are left: kept_negatives ", task.kept_negatives,
             " keeps none of its negatives; raise it");
    MR_CHECK(counts[t].rows > 0, text);
    MR_FAIL(text, ": there is nothing to tell apart; look at its rule in the schema");
  }
}

// "" when train.select_by has a value for the task on the validation rows.
std::string unjudged(const MetricName& metric, const std::string& task, const LabelCounts& counts) {
  const std::string one_class = one_class_text(task, counts, Split::validation);
  if (counts.rows == 0) return one_class;
  switch (metric.kind) {
    case MetricKind::log_loss:
    case MetricKind::rmse:
    case MetricKind::mae:
      return "";
    case MetricKind::normalised_entropy:  // of a mean label between 0 and 1
      return counts.highest <= 0 || counts.lowest >= 1 ? one_class : "";
    case MetricKind::calibration:
    case MetricKind::ndcg:  // whose grades are the labels themselves
      return counts.highest <= 0 ? one_class : "";
    default:
      break;
  }
  if (!counts.ranked)
    return concat_message("the label '", task, "' lies between 0 and 1 in ", counts.fractional,
                          " validation rows and the task has no positive_from");
  const bool needs_negatives = !metric.of_lists();
  if (counts.positives == 0 || (needs_negatives && !counts.has_auc()))
    return concat_message(counts.positives > 0 ? "all " : "none of ", counts.rows,
                          " validation rows are positive for '", task, "'");
  if (metric.kind == MetricKind::uauc && !counts.has_uauc())
    return concat_message("no user has validation rows of both classes of '", task, "'");
  if (metric.kind == MetricKind::request_auc && !counts.has_request_auc())
    return concat_message("no request has validation rows of both classes of '", task, "'");
  return "";
}

void check_validation(const Dataset& data, const std::string& select_by, std::vector<std::string>& notes) {
  const std::vector<TaskSpec>& tasks = data.spec().tasks;
  const std::vector<LabelCounts> counts = count_labels(data, Split::validation, false);
  const MetricName metric = parse_metric(select_by, "train.select_by");
  std::string all;
  size_t judged = 0;
  for (size_t t = 0; t < tasks.size(); ++t) {
    const std::string why = unjudged(metric, tasks[t].name, counts[t]);
    judged += why.empty();
    if (why.empty()) continue;
    all += (all.empty() ? "" : ", ") + why;
    notes.push_back(
        concat_message("'", tasks[t].name, "' is left out of the mean ", select_by, " that chooses: ", why));
  }
  MR_CHECK(judged > 0, "train.select_by is ", select_by,
           ", which the validation rows do not determine: ", all,
           select_by == "log_loss" ? "" : "; train.select_by=log_loss needs labels only");
}

void check_test(const Dataset& data, std::vector<std::string>& notes) {
  const std::vector<TaskSpec>& tasks = data.spec().tasks;
  const std::vector<LabelCounts> counts = count_labels(data, Split::test, false);
  std::string all;
  size_t judged = 0;
  for (size_t t = 0; t < tasks.size(); ++t) {
    judged += !counts[t].one_class();
    if (!counts[t].one_class()) continue;
    const std::string why = one_class_text(tasks[t].name, counts[t], Split::test);
    all += (all.empty() ? "" : ", ") + why;
    notes.push_back(concat_message("the test says little of '", tasks[t].name, "': ", why));
  }
  MR_CHECK(
      judged > 0, all,
      ": there is nothing to tell apart; look at its rule in the schema, or leave the test rows alone with "
      "train.test=false");
}

}  // namespace

std::vector<std::string> check_trainable(const Dataset& data, const TrainConfig& config) {
  std::vector<std::string> notes;
  check_rows(data, Split::train, "; look at the schema's split");
  check_training(data, Split::train);
  if (data.stats(Split::validation).rows > 0) {
    check_validation(data, config.select_by, notes);
  } else {
    const char* needs = config.refit ? "train.refit" : config.patience > 0 ? "train.patience" : nullptr;
    MR_CHECK(!needs, needs,
             " needs validation rows to choose by: give the schema's split validation_days or validation");
  }
  if (!config.test) return notes;
  check_rows(data, Split::test, "; train.test=false trains without one");
  check_test(data, notes);
  return notes;
}

}  // namespace mixrec
