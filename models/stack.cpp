#include "mixrec/models/stack.h"

#include "mixrec/core/error.h"
#include "mixrec/ops/arithmetic.h"
#include "mixrec/ops/layout.h"

namespace mixrec {
namespace {

struct Own {
  std::vector<SequenceEntry> sequences;
  std::vector<InteractionEntry> interactions;
};
Own& own() {
  static Own modules;
  return modules;
}

template <class Entry>
std::vector<Entry> joined(std::vector<Entry> first, const std::vector<Entry>& then) {
  first.insert(first.end(), then.begin(), then.end());
  return first;
}

const SequenceEntry& sequence_of(const StackOptions& o) {
  return find_entry<SequenceEntry>("sequence module", o.sequence.name, {&own().sequences, &sequence_list()});
}

const InteractionEntry& interaction_of(const StackOptions& o) {
  return find_entry<InteractionEntry>("interaction module", o.interaction.name,
                                      {&own().interactions, &interaction_list()});
}

InputOptions input_options(const FeatureSet& spec, const StackOptions& o) {
  InputOptions input{
      .dropout = o.dropout, .table_deviation = o.table_deviation, .field_width = o.field_width};
  interaction_of(o).ask(o.interaction.options, static_cast<int64_t>(spec.tasks.size()), input);
  return input;
}

}  // namespace

OwnModules::OwnModules(std::vector<SequenceEntry> sequences, std::vector<InteractionEntry> interactions) {
  own() = {std::move(sequences), std::move(interactions)};
}

OwnModules::~OwnModules() { own() = {}; }

std::vector<SequenceEntry> sequence_modules() { return joined(own().sequences, sequence_list()); }
std::vector<InteractionEntry> interaction_modules() { return joined(own().interactions, interaction_list()); }

void NamedModule::visit(OptionVisitor& v) {
  const std::string before = name;
  v.text("name", name, "which one; its other keys are its own options");
  if (name != before) options = "{}";  // those of another module
  v.other_keys(options, "");
}

void StackOptions::visit(OptionVisitor& v) {
  v.nested("sequence", sequence, "what each history is made into; name none = histories are not read");
  v.nested("interaction", interaction, "what reads the features");
  v.choice("compose", compose, {"stacked", "parallel"},
           "whether the interaction reads what the sequence made");
  v.nested("heads", heads, "from there to the tasks' logits");
  v.number("field_width", field_width, between(0, 65536),
           "features are projected to it, where fields are read; 0 = no");
  v.number("dropout", dropout, below(0, 1), "on the embedded features, in training");
  v.number("table_deviation", table_deviation, between(0, 1e3), "standard deviation of initial embeddings");
}

Stack::Stack(const FeatureSet& spec, const StackOptions& o, Rng& rng)
    : stacked_(o.compose == "stacked"),
      tasks_(static_cast<int64_t>(spec.tasks.size())),
      input_(spec, input_options(spec, o), rng) {
  MR_CHECK(tasks_ > 0, "a model needs at least one task");
  InputShape shape = input_.shape();
  int64_t beside = 0;
  for (size_t h = 0; o.sequence.name != "none" && h < spec.histories.size(); ++h) {
    Encoder encoder{
        spec.histories[h].name,
        sequence_of(o).build({"", "model.sequence"}, {input_.shape(), h}, o.sequence.options, rng),
        {},
        0};
    encoder.width = encoder.module->width();
    if (stacked_ && shape.field_width > 0 && encoder.width != shape.field_width) {
      encoder.projection.emplace(encoder.width, shape.field_width, rng, LinearOptions{.bias = false});
      encoder.width = shape.field_width;
    }
    if (stacked_) shape = shape.with_field(encoder.width, encoder.module->of_request());
    if (!stacked_) beside += encoder.width;
    encoders_.push_back(std::move(encoder));
  }
  interaction_ =
      interaction_of(o).build({"", "model.interaction"}, {shape, tasks_}, o.interaction.options, rng);
  if (const int64_t width = interaction_->width() + beside; width > 0)
    heads_.emplace(HeadInput{.width = width}, spec.tasks, o.heads, rng);
}

Tensor Stack::forward(const RequestBatch& batch, Pass& pass) const {
  Inputs in(input_, batch, pass);
  const Inputs raw = in;
  std::vector<Tensor> parts;
  for (const Encoder& encoder : encoders_) {
    Tensor y = encoder.module->forward(raw, pass);
    pass.tap("sequence." + encoder.history, y);
    if (encoder.projection) y = encoder.projection->forward(y);
    const bool of_request = encoder.module->of_request();
    if (stacked_) {
      in = in.with_field(y, of_request);
    } else {
      parts.push_back(of_request ? in.for_candidates(y) : y);
    }
  }
  const Interaction made = interaction_->forward(in, pass);
  if (made.x.defined()) parts.push_back(made.x);
  Tensor logits;
  if (heads_) logits = heads_->forward(parts.size() == 1 ? parts[0] : concat(parts, 1), pass);
  if (!made.logits.defined()) return logits;
  if (logits.defined()) return logits + made.logits;
  return made.logits.dim(1) == tasks_
             ? made.logits
             : made.logits + zeros({1, tasks_}, made.logits.dtype(), made.logits.device());
}

void Stack::visit(Visitor& v) {
  v.module("embedding", input_);
  for (Encoder& encoder : encoders_) {
    v.module("sequence." + encoder.history, *encoder.module);
    if (encoder.projection) v.module("projection." + encoder.history, *encoder.projection);
  }
  v.module("interaction", *interaction_);
  if (heads_) v.module("heads", *heads_);
}

ModelEntry stack_entry(std::string name, std::string help, const StackOptions& defaults) {
  const auto build = [defaults, name](const FeatureSet& spec, const std::string& text,
                                      Rng& rng) -> std::unique_ptr<RankingModel> {
    StackOptions options = defaults;
    read_options({"", "model"}, text, options);
    return std::make_unique<ModelHolder<Stack>>(Stack(spec, options, rng), name);
  };
  return {std::move(name), std::move(help), build, write_options(defaults),
          describe_options("model", defaults)};
}

}  // namespace mixrec
