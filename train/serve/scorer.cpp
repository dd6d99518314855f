#include "mixrec/train/serve/scorer.h"

#include "mixrec/autograd/record.h"
#include "mixrec/core/error.h"
#include "mixrec/core/parallel_for.h"
#include "mixrec/train/device_choice.h"
#include "mixrec/train/evaluate.h"
#include "mixrec/train/load_model.h"
#include "mixrec/train/serve/recorded_pass.h"

#include <cmath>
#include <optional>

namespace mixrec {

struct Scorer::Impl {
  Impl(const RunFolder& folder, const RunRecord& record, const Config& config, const ScorerOptions& options,
       const std::vector<ModelEntry>& own_models)
      : encoder(run_encoder(folder, record)),
        device(choose_device(options.device)),
        compute(choose_precision(options.precision)),
        shift(logit_shifts(encoder.spec().tasks)),
        cache(static_cast<size_t>(options.cache_bytes)) {
    loaded = load_model(folder, record, config, encoder.spec(), device, own_models);
    warm_up();
    if (device.is_cuda() && options.graphs > 0)
      recorded.emplace(*loaded.model, encoder.spec(), device, compute, static_cast<size_t>(options.graphs));
  }

  static FeatureEncoder run_encoder(const RunFolder& folder, const RunRecord& record) {
    check_has_encoders(folder, record);
    return {folder.encoders_path(), trained_on(folder)};
  }

  // One call: what is made at first use (weights in bf16) is there before several threads or streams ask for it.
  void warm_up() const {
    const NoGrad no_grad;
    ScoreRequest request{.candidates = {Candidate("?")}};
    for (const HistorySpec& history : encoder.spec().histories)
      request.histories[history.name] = {Event("?")};
    Pass own_pass = pass();
    loaded.model->forward(encoder.encode(request).to(device), own_pass).to_vector();
  }

  Pass pass() const {
    Pass pass;
    pass.compute = compute;
    return pass;
  }

  Scores finish(const Tensor& logits, int64_t candidates) const {
    const Shape expected{candidates, static_cast<int64_t>(shift.size())};
    MR_CHECK(logits.shape() == expected, "the model's logits are ", logits.shape(), ", expected ", expected,
             " for [candidates, tasks]");
    return finish(logits.to_vector());
  }

  Scores finish(std::vector<float> values) const {
    for (size_t i = 0; i < values.size(); ++i) {
      MR_CHECK(std::isfinite(values[i]), "candidate ", i / shift.size(), ": the model's '",
               encoder.spec().tasks[i % shift.size()].name,
               "' is not finite; a number of the request may be too large for the model");
      values[i] = probability(values[i] + shift[i % shift.size()]);
    }
    return {std::move(values), shift.size()};
  }

  // `whole` and `candidates` make the batch, all of it or without what belongs to the user, and note what they encode.
  template <class Whole, class Candidates>
  Scores score(const std::string& key, EncodeNotes& notes, const Whole& whole,
               const Candidates& candidates) const {
    const NoGrad no_grad;
    Pass own_pass = pass();
    RankingModel& model = *loaded.model;
    UserCache::Kept kept = key.empty() ? UserCache::Kept{} : cache.find(key);
    std::shared_ptr<const UserSide> user = std::move(kept.side);
    if (user) {
      // What the user's side was computed from is as unknown as it was then.
      for (const auto& [name, count] : kept.unknown) notes.unknown[name] += count;
      const RequestBatch batch = candidates();
      return finish(model.item_side(*user, batch.to(device), own_pass), batch.candidates);
    }
    const RequestBatch batch = whole();
    if (key.empty() && recorded && batch.requests == 1) return finish(recorded->logits(batch));
    const RequestBatch placed = batch.to(device);
    if (!key.empty() && (user = model.user_side(placed, own_pass))) {
      Scores scores = finish(model.item_side(*user, placed, own_pass), batch.candidates);
      // Only what gave an answer is kept for others.
      cache.keep(key, user, notes.unknown_of_user);
      return scores;
    }
    return finish(model.forward(placed, own_pass), batch.candidates);
  }

  FeatureEncoder encoder;
  Device device;
  DType compute;
  std::vector<float> shift;
  LoadedModel loaded;
  mutable UserCache cache;
  mutable std::optional<RecordedPasses> recorded;
};

Scorer::Scorer(const std::string& run, const ScorerOptions& options,
               const std::vector<ModelEntry>& own_models) {
  MR_CHECK(options.cache_bytes >= 0, "cache_bytes must not be negative, got ", options.cache_bytes);
  const RunFolder folder = RunFolder::resume(run);
  if (options.threads > 0) set_num_threads(options.threads);
  impl_ = std::make_unique<Impl>(folder, read_record(folder), load_config(folder.config_path(), {}), options,
                                 own_models);
}
Scorer::~Scorer() = default;
Scorer::Scorer(Scorer&&) noexcept = default;

Scores Scorer::score(const ScoreRequest& request, const std::string& user_key, EncodeNotes* notes) const {
  const FeatureEncoder& encoder = impl_->encoder;
  EncodeNotes unasked;
  EncodeNotes& noted = notes ? *notes : unasked;
  noted.unknown_of_user.clear();
  return impl_->score(
      user_key, noted, [&] { return encoder.encode(request, &noted); },
      [&] { return encoder.encode_candidates(request, &noted); });
}

Scores Scorer::score(const RequestBatch& batch, const std::string& user_key) const {
  MR_CHECK(user_key.empty() || batch.requests == 1, "a user key belongs to one request, the batch has ",
           batch.requests);
  const auto given = [&]() -> const RequestBatch& { return batch; };
  batch.validate(impl_->encoder.spec());
  EncodeNotes unasked;
  return impl_->score(user_key, unasked, given, given);
}

const std::vector<TaskSpec>& Scorer::tasks() const { return impl_->encoder.spec().tasks; }
const FeatureEncoder& Scorer::encoder() const { return impl_->encoder; }
UserCache::Stats Scorer::cache_stats() const { return impl_->cache.stats(); }

}  // namespace mixrec
