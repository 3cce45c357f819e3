"""The user encoder as it is served, an ONNX file: the model's weights, in few and large steps.

A request asks for the state after the newest event alone, so the top block answers for that one
event. Attention, GELU and the length of 1 are operators of ONNX Runtime's own, where a trace of
the model gives dozens of small ones that shuffle shapes. The gate compares what comes out of the
file with the model as it was learned.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from nearline.sequence import PAD, ModelInput
from training.model import Block, CausalAttention, FeedForward, Gated, UserEncoder

_OWN = "com.microsoft"
"""The operators of ONNX Runtime that the standard does not have."""

_OPSET = 17
_ATTENTION = f"{_OWN}::MultiHeadAttention"


class ServedNetwork(nn.Module):
    """Events to the state after the newest one; it reads items as vectors (B, L, D)."""

    def __init__(self, encoder: UserEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, items: Tensor, types: Tensor, gaps: Tensor, values: Tensor, hours: Tensor
    ) -> Tensor:
        x = self.encoder.read(items, types, gaps, values, hours)
        *below, top = cast(list[Block], list(self.encoder.blocks))
        for block in below:
            x = _fed(block.feed, _attended(block.attention, x))
        there = types != PAD
        counted = there.long().cumsum(1)  # (B, L)
        newest = there & (counted == counted[:, -1:])
        last = newest.unsqueeze(1).to(x.dtype) @ x  # (B, 1, D)
        last = _fed(top.feed, _asked(top.attention, last, x, there))
        return _Unit.apply(self.encoder.norm(last)).flatten(0, 1)  # (B, D)


def _attended(gated: Gated, x: Tensor) -> Tensor:
    """Attention of every event to those up to it."""
    part = gated.part
    assert isinstance(part, CausalAttention)
    q, k, v = part.qkv(gated.norm(x)).split(part.out.in_features, dim=2)
    return gated.added(x, part.out(_Causal.apply(q, k, v, part.heads)))  # (B, L, D)


def _asked(gated: Gated, last: Tensor, x: Tensor, there: Tensor) -> Tensor:
    """Attention of one event a sequence, the newest, to all that are `there` (B, L)."""
    part = gated.part
    assert isinstance(part, CausalAttention)
    dim = part.out.in_features
    q = F.linear(gated.norm(last), part.qkv.weight[:dim], part.qkv.bias[:dim])
    found = F.linear(gated.norm(x), part.qkv.weight[dim:], part.qkv.bias[dim:])
    k, v = found.split(dim, dim=2)
    return gated.added(last, part.out(_Masked.apply(q, k, v, there, part.heads)))  # (B, 1, D)


def _fed(gated: Gated, x: Tensor) -> Tensor:
    part = gated.part
    assert isinstance(part, FeedForward)
    return gated.added(x, part.out(_Gelu.apply(part.wide(gated.norm(x)))))


class _Causal(torch.autograd.Function):
    """Attention of q, k, v (B, L, D) in `heads` parts, each event to those up to it."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        return _attention(q, k, v, heads, is_causal=True)

    @staticmethod
    def symbolic(g: Any, q: Any, k: Any, v: Any, heads: int) -> Any:
        found = g.op(_ATTENTION, q, k, v, num_heads_i=heads, unidirectional_i=1)
        return found.setType(q.type())


class _Masked(torch.autograd.Function):
    """Attention of q (B, 1, D) to those of k, v (B, L, D) that are `there`, bool (B, L)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, there: Tensor, heads: int) -> Tensor:
        return _attention(q, k, v, heads, attn_mask=there[:, None, None])

    @staticmethod
    def symbolic(g: Any, q: Any, k: Any, v: Any, there: Any, heads: int) -> Any:
        mask = g.op("Cast", there, to_i=torch.onnx.TensorProtoDataType.INT32)
        no_bias = g.op("prim::Constant").setType(torch._C.OptionalType.ofTensor())
        found = g.op(_ATTENTION, q, k, v, no_bias, mask, num_heads_i=heads)
        return found.setType(q.type())


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.gelu(x)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op(f"{_OWN}::Gelu", x).setType(x.type())


class _Unit(torch.autograd.Function):
    """Vectors of length 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("LpNormalization", x, axis_i=-1, p_i=2).setType(x.type())


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **how: Any) -> Tensor:
    parts = (each.unflatten(2, (heads, -1)).transpose(1, 2) for each in (q, k, v))
    return F.scaled_dot_product_attention(*parts, **how).transpose(1, 2).flatten(2)


def export(network: nn.Module, path: Path, *, dim: int) -> None:
    """A network that reads events and gives a vector of each user, as ONNX; batch and length are
    free.

    The exporter by tracing is used: it takes a fifth of a second where the newer one takes ten,
    and writes no paths of this machine into the file, so the same model gives the same bytes.
    """
    inputs = list(ModelInput._fields)
    numbers = [torch.ones(2, 2, dtype=torch.int64)] * (len(inputs) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.ones(2, 2, dim), *numbers),
            str(path),
            input_names=inputs,
            output_names=["user"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in inputs}
            | {"user": {0: "batch"}},
            opset_version=_OPSET,
            dynamo=False,
        )


def compress(source: Path, target: Path) -> None:
    """The same network with weights in int8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        # Seven bits: where a processor has no VNNI, sums of two products of eight overflow.
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, reduce_range=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises on pre-processing that this network has no use for."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
