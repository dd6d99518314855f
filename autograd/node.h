// The graph: one node an op, edges to the nodes and leaves of its inputs.
#pragma once

#include "mixrec/autograd/meta.h"
#include "mixrec/autograd/record.h"

#include <memory>
#include <vector>

namespace mixrec::autograd {

// Where the gradient of one input goes: to an output of an older node, or to a leaf.
struct Edge {
  std::shared_ptr<Node> node;
  int output = 0;
  std::shared_ptr<Meta> leaf;
  Shape shape;
  DType dtype = DType::f32;

  bool needed() const { return node || leaf; }
};

struct Node {
  struct Output {
    Shape shape;
    DType dtype;
    Device device;
  };

  uint64_t order = 0;  // creation number: an op is always newer than its inputs' ops
  const char* name = "";
  bool recomputes =
      false;  // its backward runs a backward of its own, over leaves that are no edges of this node
  std::vector<Edge> inputs;
  std::vector<Output> outputs;
  Backward backward;          // empty once it ran
  std::vector<Tensor> grads;  // of the outputs, gathered while a backward runs

  // Unlinks chains of nodes one by one: a chain of 300,000 must not recurse.
  ~Node();
};

}  // namespace mixrec::autograd
