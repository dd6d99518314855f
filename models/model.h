// A ranking model behind one small interface, so that the trainer is compiled once and models are found by
// name.
//
// A model is any struct with
//
//   Tensor forward(const RequestBatch& batch, Pass& pass);   // logits [C, tasks], on the batch's device
//   void visit(Visitor& v);
//
// and, optionally,
//
//   double forward_flops(const RequestBatch&) const;                            // for progress reports
//   UserState user_side(const RequestBatch&, Pass&);                            // for scoring: what never reads a
//   Tensor item_side(const UserState&, const RequestBatch&, Pass&);             // candidate, kept between calls;
//                                                           // UserState has compact() and bytes(): ui_mixformer.h
#pragma once

#include "mixrec/core/request_batch.h"
#include "mixrec/models/options.h"
#include "mixrec/nn/module.h"
#include "mixrec/nn/pass.h"

#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

namespace mixrec {

// What a model has computed of requests alone.
class UserSide {
 public:
  virtual ~UserSide() = default;
  virtual size_t bytes() const = 0;  // of memory that it holds
};

class RankingModel {
 public:
  virtual ~RankingModel() = default;
  virtual Tensor forward(const RequestBatch& batch, Pass& pass) = 0;
  virtual std::vector<Parameter> parameters() = 0;
  virtual void to_dtype(DType dtype) = 0;  // as mixrec::to_dtype(); before there is an optimiser
  virtual std::string name() const = 0;    // in logs and results
  virtual double forward_flops(const RequestBatch&) const { return 0; }  // 0: unknown

  // forward() in two steps, the first of which reads request features and histories only and may be kept; the
  // second reads features of candidates and their offsets only.  Null: this model has no such step.
  virtual std::shared_ptr<const UserSide> user_side(const RequestBatch&, Pass&) { return nullptr; }
  virtual Tensor item_side(const UserSide&, const RequestBatch&, Pass&) { return {}; }
};

namespace detail {

// "SmallModel" of test::SmallModel.
std::string type_name(const std::type_info& type);

template <class M>
concept HasUserSide = requires(M& model, const RequestBatch& batch, Pass& pass) {
  model.item_side(model.user_side(batch, pass), batch, pass);
};

template <class State>
struct HeldUserSide : UserSide {
  explicit HeldUserSide(State state) : state(std::move(state)) {}
  size_t bytes() const override { return state.bytes(); }
  State state;
};

}  // namespace detail

// Wraps a model, or a reference to one that outlives the wrapper.  Its name is that of its type unless one is given.
template <class M>
class ModelHolder : public RankingModel {
 public:
  explicit ModelHolder(M model, std::string name = detail::type_name(typeid(M)))
      : model_(std::forward<M>(model)), name_(std::move(name)) {}
  std::string name() const override { return name_; }
  Tensor forward(const RequestBatch& batch, Pass& pass) override { return model_.forward(batch, pass); }
  std::vector<Parameter> parameters() override { return mixrec::parameters(model_); }
  void to_dtype(DType dtype) override { mixrec::to_dtype(model_, dtype); }
  double forward_flops(const RequestBatch& batch) const override {
    if constexpr (requires { model_.forward_flops(batch); }) return model_.forward_flops(batch);
    return 0;
  }
  std::shared_ptr<const UserSide> user_side(const RequestBatch& batch, Pass& pass) override {
    if constexpr (detail::HasUserSide<Model>) {
      return std::make_shared<Held<Model>>(model_.user_side(batch, pass).compact());
    }
    return nullptr;
  }
  Tensor item_side(const UserSide& user, const RequestBatch& batch, Pass& pass) override {
    if constexpr (detail::HasUserSide<Model>) {
      return model_.item_side(static_cast<const Held<Model>&>(user).state, batch, pass);
    }
    return RankingModel::item_side(user, batch, pass);
  }

 private:
  using Model = std::remove_reference_t<M>;
  template <class Of>
  using Held = detail::HeldUserSide<typename Of::UserState>;

  M model_;
  std::string name_;
};

// A model that can be built by name: "name" in the model section of a configuration.
struct ModelEntry {
  std::string name;
  std::string help;  // one line
  // `options` is the JSON text of the section's other keys; unknown keys are errors.
  std::function<std::unique_ptr<RankingModel>(const FeatureSet& spec, const std::string& options, Rng& rng)>
      build;
  std::string default_options;  // JSON text
  std::string option_help;      // a line for each: its path, its default, what it is
};

// The entry of a model M(const FeatureSet&, const Options&, Rng&), where Options has
//   void visit(OptionVisitor& v) { v.number("layers", layers, between(1, 100), "of attention"); }
template <class M, class Options>
ModelEntry model_entry(std::string name, std::string help) {
  const auto build = [name](const FeatureSet& spec, const std::string& text,
                            Rng& rng) -> std::unique_ptr<RankingModel> {
    Options options;
    read_options({name, "model"}, text, options);
    return std::make_unique<ModelHolder<M>>(M(spec, options, rng), name);
  };
  return {std::move(name), std::move(help), build, write_options(Options{}),
          describe_options("model", Options{})};
}

}  // namespace mixrec
