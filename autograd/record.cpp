#include "mixrec/autograd/record.h"

#include "mixrec/autograd/node.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"

#include <atomic>
#include <utility>

namespace mixrec {

namespace {

thread_local bool enabled = true;
std::atomic<uint64_t> next_order{0};

}  // namespace

Tensor Needs::gradient(size_t input, const Shape& shape, DType dtype, Device device) const {
  if (input < homes_.size() && homes_[input].defined()) {
    const Tensor& home = homes_[input];
    if (home.shape() == shape && home.dtype() == dtype && home.device() == device) return home.detach();
  }
  return empty(shape, dtype, device);
}

Tensor Needs::running(size_t input) const {
  Tensor* sum = flags_[input] && input < sums_.size() ? sums_[input] : nullptr;
  if (!sum || !sum->defined() || !sum->sole_owner() || !sum->is_contiguous()) return {};
  return std::exchange(*sum, {});
}

bool grad_enabled() { return enabled; }

GradMode::GradMode(bool on) : outer_(enabled) { enabled = on; }
GradMode::~GradMode() { enabled = outer_; }

Saved::Saved(const Tensor& x) {
  if (!x.defined()) return;
  tensor_ = x.detach();
  version_ = x.version();
}

const Tensor& Saved::get() const {
  MR_CHECK(!tensor_.defined() || tensor_.version() == version_, "a tensor ", tensor_.shape(),
           " that the backward needs was changed in place after the forward");
  return tensor_;
}

namespace autograd {

thread_local OutputWatch* OutputWatch::current_ = nullptr;

OutputWatch::OutputWatch(Function function) : function_(std::move(function)), outer_(current_) {
  current_ = this;
}
OutputWatch::~OutputWatch() { current_ = outer_; }

void OutputWatch::call(const Tensor& output, const std::vector<Tensor>& inputs) const {
  for (const Tensor& x : inputs) {
    if (x.defined() && x.storage() == output.storage()) return;
  }
  function_(detail::current_op(), output);
}

Node::~Node() {
  std::vector<std::shared_ptr<Node>> chain;
  const auto take = [&chain](Node& node) {
    for (Edge& edge : node.inputs) {
      if (edge.node.use_count() == 1) chain.push_back(std::move(edge.node));
    }
    node.inputs.clear();
    node.backward = nullptr;
  };
  take(*this);
  while (!chain.empty()) {
    const std::shared_ptr<Node> node = std::move(chain.back());
    chain.pop_back();
    take(*node);
  }
}

bool any_needs_grad(const std::vector<Tensor>& inputs) {
  for (const Tensor& x : inputs) {
    if (x.defined() && x.needs_grad()) return true;
  }
  return false;
}

void make_node(std::vector<Tensor>& outputs, const std::vector<Tensor>& inputs, Backward backward,
               bool recomputes) {
  const auto node = std::make_shared<Node>();
  node->order = next_order++;
  node->name = detail::current_op();
  node->backward = std::move(backward);
  node->recomputes = recomputes;
  for (const Tensor& x : inputs) {
    Edge& edge = node->inputs.emplace_back();
    if (!x.defined() || !x.needs_grad()) continue;
    edge.shape = x.shape();
    edge.dtype = x.dtype();
    edge.node = x.meta()->node;
    edge.output = x.meta()->output;
    if (!edge.node) edge.leaf = x.meta();
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    Tensor& y = outputs[i];
    node->outputs.push_back({y.shape(), y.dtype(), y.device()});
    const auto meta = std::make_shared<Meta>();
    meta->node = node;
    meta->output = static_cast<int>(i);
    y.set_meta(meta);
  }
}

std::shared_ptr<Meta> leaf_meta(const Tensor& x) {
  if (!x.meta()) x.set_meta(std::make_shared<Meta>());
  return x.meta();
}

void forget_gradient(const Tensor& leaf) {
  if (!leaf.meta()) return;
  Meta& meta = *leaf.meta();
  meta.grad = meta.grad_buffer = meta.shadow = {};
  meta.grad_in_buffer.reset();
  meta.lookups.clear();
}

Tensor dense_table_gradient(const Tensor& table, const std::vector<Lookup>& lookups) {
  const NoGrad off;
  Tensor sum = zeros(table.shape(), table.dtype());
  for (const Lookup& lookup : lookups) {
    const auto ids = lookup.ids.to_vector<int64_t>();
    const auto rows = lookup.rows.defined() ? lookup.rows.to_vector<int64_t>() : std::vector<int64_t>();
    const auto weights =
        lookup.weights.defined() ? lookup.weights.to_vector<double>() : std::vector<double>();
    Tensor dy = empty(lookup.dy.shape(), table.dtype());
    dy.copy_from(lookup.dy);
    for (size_t j = 0; j < ids.size(); ++j) {
      Tensor part = dy.narrow(0, rows.empty() ? static_cast<int64_t>(j) : rows[j], 1);
      if (!weights.empty()) part = part * weights[j];
      add_into(sum.narrow(0, ids[j], 1), part);
    }
  }
  return sum.to(table.device());
}

}  // namespace autograd

Tensor& Tensor::requires_grad(bool on) {
  MR_CHECK(is_floating(dtype()), "a gradient needs a floating dtype, got ", dtype());
  MR_CHECK(is_leaf(), "requires_grad() is for leaves; detach() the result of an op first");
  autograd::leaf_meta(*this)->requires_grad = on;
  return *this;
}

bool Tensor::is_leaf() const { return !meta() || !meta()->node; }
bool Tensor::needs_grad() const { return meta() && (meta()->requires_grad || meta()->node); }

Tensor Tensor::grad() const {
  if (!meta()) return {};
  if (meta()->lookups.empty()) return meta()->grad;
  Tensor sum = autograd::dense_table_gradient(*this, meta()->lookups);
  if (meta()->grad.defined()) add_into(sum, meta()->grad);
  return sum;
}

void Tensor::zero_grad() {
  if (!meta()) return;
  meta()->grad = {};
  meta()->lookups.clear();
}

}  // namespace mixrec
