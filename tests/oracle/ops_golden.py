"""Golden values and gradients of single ops in f64, from PyTorch.

    python tests/oracle/ops_golden.py          # needs torch and numpy; writes tests/golden/ops.safetensors

OP.NAME are inputs, OP.y the output, OP.dy a random upstream gradient and OP.dNAME the gradient of sum(y * dy) with
respect to an input.
"""

import os

import numpy as np
import torch
import torch.nn.functional as F

import golden_file

g = torch.Generator().manual_seed(7)
tensors = {}


def normal(*shape, scale=1.0):
    return torch.randn(shape, generator=g, dtype=torch.float64) * scale


def case(op, function, constants=None, **inputs):
    for value in inputs.values():
        value.requires_grad_()
    y = function(*inputs.values(), *(constants or {}).values())
    dy = normal(*y.shape)
    gradients = torch.autograd.grad((y * dy).sum(), list(inputs.values()))
    named = {**(constants or {}), **inputs, "y": y, "dy": dy}
    named.update({"d" + name: gradient for name, gradient in zip(inputs, gradients)})
    tensors.update({f"{op}.{name}": value.detach().numpy() for name, value in named.items()})


def wide():
    """From the middle of every curve to where exp overflows a float."""
    return torch.cat([normal(20, scale=2), torch.tensor([0.0, 1e-9, -30, 30, -120, 120], dtype=torch.float64)])


for name, function in {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "silu": F.silu, "gelu": F.gelu,
                       "relu": F.relu, "softplus": lambda x: F.softplus(x, threshold=1000), "exp": torch.exp}.items():
    x = wide()
    case(name, function, x=x[x < 100] if name == "exp" else x)
for name, function in {"sqrt": torch.sqrt, "log": torch.log, "log1p": torch.log1p}.items():
    case(name, function, x=normal(9).abs() + 0.1)

case("softmax", lambda x: torch.softmax(x, -1), x=normal(3, 7, scale=3))
case("log_softmax", lambda x: torch.log_softmax(x, -1), x=normal(3, 7, scale=3))
case("logsumexp", lambda x: torch.logsumexp(x, -1), x=normal(3, 7, scale=3) + torch.tensor([[0.0], [800], [-800]]))

case("rms_norm", lambda x, gain: F.rms_norm(x, (7,), gain, eps=1e-6), x=normal(2, 3, 7), gain=1 + normal(7, scale=0.3))
case("layer_norm", lambda x, gain, bias: F.layer_norm(x, (7,), gain, bias, eps=1e-5), x=normal(2, 3, 7),
     gain=1 + normal(7, scale=0.3), bias=normal(7))
case("swiglu", lambda gate, up: F.silu(gate) * up, gate=normal(4, 9, scale=2), up=normal(4, 9))

labels = torch.tensor([[1, 0, 1], [0, 0, 1], [0.25, 1, 0], [1, 0, 0.5]], dtype=torch.float64)
weights = torch.tensor([[1, 0.5, 2], [1, 1, 0], [0, 3, 1], [1, 1, 1]], dtype=torch.float64)
logits = torch.cat([normal(3, 3, scale=2), torch.tensor([[60.0, -60, 0]], dtype=torch.float64)])


def weighted_bce(logits, labels, weights, dim):
    loss = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="none")
    return loss.sum(dim) / weights.sum(dim)


case("bce_with_logits", lambda *inputs: weighted_bce(*inputs, dim=(0, 1)), dict(labels=labels, weights=weights),
     logits=logits.clone())
case("bce_with_logits_per_task", lambda *inputs: weighted_bce(*inputs, dim=0), dict(labels=labels, weights=weights),
     logits=logits.clone())
case("mse", lambda prediction, target: F.mse_loss(prediction, target), dict(target=normal(4, 3)),
     prediction=normal(4, 3))
case("softmax_cross_entropy", lambda logits, labels: F.cross_entropy(logits, labels),
     dict(labels=torch.tensor([2, 0, 4, 1])), logits=normal(4, 5, scale=3))

ids = torch.tensor([1, 4, 4, 0, 5, 1, 3, 4])
offsets = torch.tensor([0, 3, 3, 4, 8, 8])  # the second bag and the last are empty
case("embedding", lambda table, ids: F.embedding(ids, table), dict(ids=ids), table=normal(6, 3))
for mode in ("sum", "mean"):
    case(f"embedding_bag_{mode}", lambda table, ids, offsets: F.embedding_bag(
        ids, table, offsets, mode=mode, include_last_offset=True), dict(ids=ids, offsets=offsets), table=normal(6, 3))

case("matmul", torch.matmul, x=normal(3, 5), other=normal(5, 4))
case("per_head_matmul", lambda x, weight: torch.einsum("bni,nio->bno", x, weight), x=normal(3, 2, 5),
     weight=normal(2, 5, 4))

folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")
golden_file.write(os.path.join(folder, "ops.safetensors"), {k: np.ascontiguousarray(v) if v.ndim else v
                                                            for k, v in tensors.items()}, {})
