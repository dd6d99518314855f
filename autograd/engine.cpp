// The backward pass: newest node first, so that a node runs after all of its users.
#include "mixrec/autograd/node.h"
#include "mixrec/core/copy.h"
#include "mixrec/core/error.h"

#include <atomic>
#include <queue>
#include <unordered_map>
#include <unordered_set>

namespace mixrec {

namespace autograd {
namespace {

std::atomic<int64_t> hook_count{0};
thread_local int depth = 0;  // above 1 while recomputing inside a backward

struct Nested {
  Nested() { ++depth; }
  ~Nested() { --depth; }
};

// Adds `grad` to `sum`, in place of whichever nobody else can see.
void accumulate(Tensor& sum, Tensor grad) {
  if (!sum.defined()) {
    sum = std::move(grad);
  } else if (sum.sole_owner()) {
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

void accumulate_leaf(Meta& leaf, Tensor grad) {
  if (leaf.grad.defined()) {
    add_into(leaf.grad, grad);
  } else if (leaf.grad_buffer.defined()) {
    const bool there =
        grad.storage() == leaf.grad_buffer.storage() && grad.offset() == leaf.grad_buffer.offset();
    if (!there) copy_into(leaf.grad_buffer, grad);
    leaf.grad = leaf.grad_buffer;
  } else {
    leaf.grad = grad.sole_owner() && grad.is_contiguous() ? std::move(grad) : grad.clone();
  }
}

// Where the gradient of an input may be written: it is the first of its leaf, and this node has no other.
Tensor home_of(const Node& node, const Edge& edge) {
  if (!edge.leaf || edge.leaf->grad.defined() || !edge.leaf->grad_buffer.defined()) return {};
  for (const Edge& other : node.inputs)
    if (&other != &edge && other.leaf == edge.leaf) return {};
  return edge.leaf->grad_buffer;
}

// Where newer nodes have left a part of an input's gradient.
Tensor* sum_of(const Edge& edge) {
  const bool begun = edge.node && !edge.node->grads.empty();
  return begun && depth == 1 ? &edge.node->grads[static_cast<size_t>(edge.output)] : nullptr;
}

// How many edges of the graph below `root` lead to each leaf; counted only when a hook waits for it.
std::unordered_map<Meta*, int64_t> count_leaf_uses(Node* root) {
  std::unordered_map<Meta*, int64_t> uses;
  std::unordered_set<Node*> seen{root};
  std::vector<Node*> stack{root};
  while (!stack.empty()) {
    Node* node = stack.back();
    stack.pop_back();
    for (const Edge& edge : node->inputs) {
      if (edge.leaf) ++uses[edge.leaf.get()];
      if (edge.node && seen.insert(edge.node.get()).second) stack.push_back(edge.node.get());
    }
  }
  return uses;
}

class Engine {
 public:
  void run(std::shared_ptr<Node> root, int output, Tensor upstream) {
    const Nested nested;
    if (hook_count > 0 && depth == 1) leaf_uses_ = count_leaf_uses(root.get());
    push(std::move(root), output, std::move(upstream));
    while (!heap_.empty()) {
      const std::shared_ptr<Node> node = heap_.top();
      heap_.pop();
      run_node(*node);
    }
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

  void run_node(Node& node) {
    const detail::OpScope scope(node.name);
    std::vector<Tensor> dys = std::exchange(node.grads, {});
    MR_CHECK(node.backward,
             "a second backward through one graph: its saved tensors are gone; run the forward again");
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
      sums.push_back(sum_of(edge));
    }
    // Moved out, so that the saved tensors are freed as soon as the closure has run.
    Grads grads = std::exchange(node.backward, nullptr)(
        dys, Needs(std::move(needed), std::move(homes), std::move(sums)));
    dys.clear();
    MR_CHECK(grads.size() == node.inputs.size(), grads.size(), " gradients for ", node.inputs.size(),
             " inputs");
    const std::vector<Edge> inputs = std::exchange(node.inputs, {});
    for (size_t i = 0; i < grads.size(); ++i) deliver(inputs[i], std::move(grads[i]), i);
  }

  void deliver(const Edge& edge, Tensor grad, size_t input) {
    if (!edge.needed()) return;
    if (grad.defined()) {
      MR_CHECK(grad.shape() == edge.shape && grad.dtype() == edge.dtype, "the gradient of input ", input,
               " is ", grad.dtype(), grad.shape(), ", the input is ", edge.dtype, edge.shape);
    }
    if (edge.leaf) {
      if (grad.defined()) accumulate_leaf(*edge.leaf, std::move(grad));
      const auto uses = leaf_uses_.find(edge.leaf.get());
      if (uses != leaf_uses_.end() && --uses->second == 0 && edge.leaf->on_final) edge.leaf->on_final();
    } else if (grad.defined()) {
      push(edge.node, edge.output, std::move(grad));
    }
  }

  std::priority_queue<std::shared_ptr<Node>, std::vector<std::shared_ptr<Node>>, Older> heap_;
  std::unordered_map<Meta*, int64_t> leaf_uses_;
};

}  // namespace

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
    autograd::accumulate_leaf(*meta(), dy);
  }
}

}  // namespace mixrec
