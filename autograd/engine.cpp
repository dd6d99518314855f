// The backward pass: newest node first, so that a node runs after all of its users.
#include "mixrec/autograd/node.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/cuda.h"
#include "mixrec/core/error.h"
#include "mixrec/core/storage.h"

#include <atomic>
#include <optional>
#include <queue>
#include <unordered_map>
#include <unordered_set>

namespace mixrec {

namespace autograd {
namespace {

std::atomic<int64_t> hook_count{0};

// No two elements share memory, as those of a broadcast do.
bool has_room_for_each(const Tensor& x) {
  for (int i = 0; i < x.ndim(); ++i)
    if (x.dim(i) > 1 && x.strides()[i] == 0) return false;
  return true;
}

// Adds `grad` to `sum`, in place of whichever nobody else can see.
void accumulate(Tensor& sum, Tensor grad) {
  if (!sum.defined()) {
    sum = std::move(grad);
  } else if (sum.sole_owner() && has_room_for_each(sum)) {
    add_into(sum, grad);
  } else if (grad.sole_owner() && grad.is_contiguous()) {
    add_into(grad, sum);
    sum = std::move(grad);
  } else {
    Tensor fresh = sum.clone();
    add_into(fresh, grad);
    sum = std::move(fresh);
  }
}

// A gradient that somebody else holds, or a view of, is never written: the sum goes to fresh memory.
void accumulate_leaf(Meta& leaf, Tensor grad) {
  if (leaf.grad.defined()) {
    if (!leaf.grad.sole_owner()) leaf.grad = leaf.grad.clone();
    add_into(leaf.grad, grad);
  } else if (leaf.grad_buffer.defined() && leaf.buffer_free()) {
    const Tensor& home = leaf.grad_buffer;
    if (grad.raw_data() != home.raw_data()) copy_into(home, grad);
    const auto begin = static_cast<size_t>(static_cast<std::byte*>(home.raw_data()) - home.storage()->data());
    leaf.grad = Tensor::part(home.storage(), begin, home.shape(), home.dtype());
    leaf.grad_in_buffer = leaf.grad.storage();
  } else {
    leaf.grad = grad.sole_owner() && grad.is_contiguous() ? std::move(grad) : grad.clone();
  }
}

// Where the gradient of an input may be written: it is the first of its leaf, and this node has no other.
Tensor home_of(const Node& node, const Edge& edge) {
  if (!edge.leaf || edge.leaf->grad.defined() || !edge.leaf->grad_buffer.defined() ||
      !edge.leaf->buffer_free())
    return {};
  for (const Edge& other : node.inputs)
    if (&other != &edge && other.leaf == edge.leaf) return {};
  return edge.leaf->grad_buffer;
}

// Where newer nodes have left a part of an input's gradient.
Tensor* sum_of(const Edge& edge) {
  const bool begun = edge.node && !edge.node->grads.empty();
  return begun ? &edge.node->grads[static_cast<size_t>(edge.output)] : nullptr;
}

// Says when the gradients of leaves that have a hook are final, over one backward and all that it recomputes.
class FinalGradients {
 public:
  // Counts how many edges of the graph below `root` lead to each leaf with a hook.
  void count(Node* root) {
    std::unordered_set<Node*> seen{root};
    std::vector<Node*> stack{root};
    while (!stack.empty()) {
      Node* node = stack.back();
      stack.pop_back();
      recomputations_ += node->recomputes;
      for (const Edge& edge : node->inputs) {
        if (edge.leaf) ++entry(edge.leaf).uses;
        if (edge.node && seen.insert(edge.node.get()).second) stack.push_back(edge.node.get());
      }
    }
  }

  // A counted edge was delivered.
  void delivered(const std::shared_ptr<Meta>& leaf) {
    Entry& e = entry(leaf);
    --e.uses;
    fire_if_final(e);
  }
  // A recomputation inside this backward delivered to a leaf.
  void recomputed(const std::shared_ptr<Meta>& leaf) { entry(leaf); }
  void recomputation_ended() {
    if (--recomputations_ > 0) return;
    for (size_t i = 0; i < entries_.size(); ++i) fire_if_final(entries_[i]);
  }
  // No part of the graph is left to run, also where a gradient of zero ended it early.
  void finish() {
    recomputations_ = 0;
    for (size_t i = 0; i < entries_.size(); ++i) {
      entries_[i].uses = 0;
      fire_if_final(entries_[i]);
    }
  }

 private:
  struct Entry {
    std::shared_ptr<Meta> leaf;
    int64_t uses = 0;
    bool fired = false;
  };

  Entry& entry(const std::shared_ptr<Meta>& leaf) {
    const auto [place, fresh] = index_.emplace(leaf.get(), entries_.size());
    if (fresh) entries_.push_back({leaf});
    return entries_[place->second];
  }

  void fire_if_final(Entry& e) {
    if (e.uses > 0 || recomputations_ > 0 || e.fired) return;
    e.fired = true;
    const std::shared_ptr<Meta> leaf = e.leaf;
    if (leaf->on_final) leaf->on_final();
  }

  std::vector<Entry> entries_;  // in the order in which they were met
  std::unordered_map<Meta*, size_t> index_;
  int64_t recomputations_ = 0;  // nodes that have yet to run
};

class Engine;
thread_local Engine* outermost = nullptr;  // of this thread's backwards; others run inside its closures

class Engine {
 public:
  Engine() : outer_(outermost) {
    if (!outer_) outermost = this;
  }
  ~Engine() {
    if (!outer_) outermost = nullptr;
    // What an error left waiting: the next backward through these nodes begins afresh.
    for (; !heap_.empty(); heap_.pop()) heap_.top()->grads.clear();
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  void run(std::shared_ptr<Node> root, int output, Tensor upstream) {
    if (!outer_ && hook_count > 0) final_.emplace(), final_->count(root.get());
    push(std::move(root), output, std::move(upstream));
    while (!heap_.empty()) {
      const std::shared_ptr<Node> node = heap_.top();
      heap_.pop();
      run_node(*node);
    }
    if (final_) final_->finish();
  }

  void run_leaf(const std::shared_ptr<Meta>& leaf, Tensor upstream) {
    accumulate_leaf(*leaf, std::move(upstream));
    reached(leaf, false);
    if (!outer_ && leaf->on_final) leaf->on_final();
  }

 private:
  struct Older {
    bool operator()(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) const {
      return a->order < b->order;
    }
  };

  void push(std::shared_ptr<Node> node, int output, Tensor grad) {
    if (node->grads.empty()) {
      node->grads.resize(node->outputs.size());
      heap_.push(node);
    }
    accumulate(node->grads[static_cast<size_t>(output)], std::move(grad));
  }

  void reached(const std::shared_ptr<Meta>& leaf, bool counted) {
    if (final_ && counted) final_->delivered(leaf);
    if (outer_ && outermost->final_) outermost->final_->recomputed(leaf);
  }

  void run_node(Node& node) {
    const detail::OpScope scope(node.name);
    std::vector<Tensor> dys = std::exchange(node.grads, {});
    MR_CHECK(
        node.backward,
        "a second backward through one graph, or one after a backward that failed: its saved tensors are "
        "gone; run the forward again");
    for (size_t i = 0; i < dys.size(); ++i) {
      const Node::Output& output = node.outputs[i];
      if (!dys[i].defined()) dys[i] = zeros(output.shape, output.dtype, output.device);
    }
    std::vector<bool> needed;
    std::vector<Tensor> homes;
    std::vector<Tensor*> sums;
    for (const Edge& edge : node.inputs) {
      needed.push_back(edge.needed());
      homes.push_back(home_of(node, edge));
      sums.push_back(outer_ ? nullptr : sum_of(edge));
    }
    // Moved out, so that the saved tensors are freed as soon as the closure has run.
    Grads grads = std::exchange(node.backward, nullptr)(
        dys, Needs(std::move(needed), std::move(homes), std::move(sums)));
    dys.clear();
    MR_CHECK(grads.size() == node.inputs.size(), grads.size(), " gradients for ", node.inputs.size(),
             " inputs");
    const std::vector<Edge> inputs = std::exchange(node.inputs, {});
    for (size_t i = 0; i < grads.size(); ++i) deliver(inputs[i], std::move(grads[i]), i);
    if (final_ && node.recomputes) final_->recomputation_ended();
  }

  void deliver(const Edge& edge, Tensor grad, size_t input) {
    if (!edge.needed()) return;
    if (grad.defined()) {
      MR_CHECK(grad.shape() == edge.shape && grad.dtype() == edge.dtype, "the gradient of input ", input,
               " is ", grad.dtype(), grad.shape(), ", the input is ", edge.dtype, edge.shape);
    }
    if (edge.leaf) {
      if (grad.defined()) accumulate_leaf(*edge.leaf, std::move(grad));
      reached(edge.leaf, true);
    } else if (grad.defined()) {
      push(edge.node, edge.output, std::move(grad));
    }
  }

  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, Older> heap_;
  Engine* const outer_;
  std::optional<FinalGradients> final_;  // of the outermost backward, when a hook waits
};

}  // namespace

bool Meta::buffer_free() const { return grad_in_buffer.expired() || cuda::capturing(); }

void on_gradient_final(const Tensor& leaf, std::function<void()> hook) {
  MR_CHECK(leaf.is_leaf(), "a gradient hook needs a leaf");
  const auto meta = leaf_meta(leaf);
  if (meta->on_final) --hook_count;
  if (hook) ++hook_count;
  meta->on_final = std::move(hook);
}

Meta::~Meta() {
  if (on_final) --hook_count;
}

}  // namespace autograd

void Tensor::backward(const Tensor& upstream) const {
  MR_OP("backward");
  MR_CHECK(needs_grad(), "nothing to do: no input of this tensor requires a gradient");
  MR_CHECK(upstream.defined() || numel() == 1, "needs the upstream gradient of a tensor of shape ", shape());
  const Tensor dy = upstream.defined() ? upstream.detach() : full(shape(), 1, dtype(), device());
  MR_CHECK(dy.shape() == shape() && dy.dtype() == dtype(), "the upstream gradient is ", dy.dtype(),
           dy.shape(), ", the tensor ", dtype(), shape());
  const NoGrad off;
  if (meta()->node) {
    autograd::Engine().run(meta()->node, meta()->output, dy);
  } else {
    autograd::Engine().run_leaf(meta(), dy);
  }
}

}  // namespace mixrec
