"""The layers of the bundled model in PyTorch, written for training on a CPU.

Every mixer maps (x [batch, tokens, width], state) to (y, new state). A state is a tuple of tensors whose
first axis is the batch, and a state of zeros is the empty history, so a stream is reset by zeroing its row.
Sums over time run in chunks with the state carried in between; nothing loops over single tokens.
Big projections run in `Projection.compute_dtype`; states, decays, norms and inner optimisers stay in float32.
"""
from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

State = tuple[Tensor, ...]


class Settings:
    """Keys of a card's node; a key that nobody reads is an error, as it is in plait."""

    def __init__(self, node: dict[str, Any]):
        self.left = dict(node)

    def take(self, key: str, default: Any = None) -> Any:
        return self.left.pop(key, default)

    def require(self, key: str, expected: Any) -> None:
        """Reads a key of which this file implements one value only (its default)."""
        value = self.take(key, expected)
        if value != expected:
            raise ValueError(f"setting {key}: only {expected!r} is implemented here, the card says {value!r}")

    def finish(self) -> None:
        if self.left:
            raise ValueError(f"settings that nothing reads: {', '.join(sorted(self.left))}")


class Projection:
    compute_dtype = torch.float32


def project(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """x W^T for several weights at once: one wide product is faster than several narrow ones."""
    dtype = Projection.compute_dtype
    y = F.linear(x.to(dtype), torch.cat([w.to(dtype) for w in weights]))
    return y.split([w.shape[0] for w in weights], dim=-1)


def matrix(rows: int, cols: int, std: float | None = None) -> nn.Parameter:
    std = cols**-0.5 if std is None else std
    return nn.Parameter(torch.randn(rows, cols) * std)


def vector(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.clone().float())


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, tokens, heads * d] -> float32 [batch, heads, tokens, d]"""
    return x.float().unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def l2_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def pad_tokens(x: Tensor, multiple: int) -> Tensor:
    """Zeros after the last token of [..., tokens, channels]; harmless because every mixer is causal."""
    return F.pad(x, (0, 0, 0, -x.shape[-2] % multiple))


def to_chunks(x: Tensor, size: int) -> Tensor:
    return x.unflatten(2, (-1, size))


def rope_tables(positions: Tensor, channels: int, theta: float) -> tuple[Tensor, Tensor]:
    rate = theta ** (-torch.arange(0, channels, 2, dtype=torch.float64, device=positions.device) / channels)
    angle = positions.double()[:, None] * rate
    return angle.cos().float(), angle.sin().float()


def rope_half_split(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def rope_interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


class RmsNorm(nn.Module):
    def __init__(self, width: int, s: Settings):
        super().__init__()
        self.eps = s.take("eps", 1e-6)
        s.require("form", "plain")
        self.weight = vector(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class GatedMlp(nn.Module):
    def __init__(self, width: int, s: Settings):
        super().__init__()
        hidden = s.take("hidden")
        s.require("activation", "silu")
        s.require("bias", False)
        self.gate, self.up = matrix(hidden, width), matrix(hidden, width)
        self.down = matrix(width, hidden, std=0.0)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        gate, up = project(x, self.gate, self.up)
        return project(F.silu(gate) * up, self.down)[0], ()


class SoftmaxAttention(nn.Module):
    """Causal attention over a window. The state is the last `window` keys and values and a flag "is a key"."""

    def __init__(self, width: int, s: Settings):
        super().__init__()
        self.heads, self.dim = s.take("num_heads"), s.take("head_dim")
        self.window = s.take("window")
        rope, norm = s.take("rope"), s.take("qk_norm")
        s.require("gate", "sigmoid")
        s.require("gate_granularity", "headwise")
        self.theta, self.eps = rope["theta"], norm.get("eps", 1e-6)
        inner = self.heads * self.dim
        self.q, self.k, self.v = (matrix(inner, width) for _ in range(3))
        self.q_norm, self.k_norm = (vector(torch.ones(self.dim)) for _ in range(2))
        self.gate = matrix(self.heads, width)
        self.o = matrix(width, inner, std=0.0)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        tokens, window = x.shape[1], self.window
        q, k, v, gate = project(x, self.q, self.k, self.v, self.gate)
        q = rms_norm(split_heads(q, self.heads), self.q_norm, self.eps)
        k = rms_norm(split_heads(k, self.heads), self.k_norm, self.eps)
        v = split_heads(v, self.heads)
        if state is None:
            past = k.new_zeros(*k.shape[:2], window, self.dim)
            state = (past, past, k.new_zeros(k.shape[0], window))
        k, v = torch.cat([state[0], k], dim=2), torch.cat([state[1], v], dim=2)
        known = torch.cat([state[2], k.new_ones(k.shape[0], tokens)], dim=1)
        y = self.attend(q, k, v, known)[:, :, :tokens]
        y = y * gate.float().sigmoid().transpose(1, 2)[..., None]
        kept = tuple(t[..., tokens:, :].contiguous() for t in (k, v))
        return project(merge_heads(y), self.o)[0], (*kept, known[:, tokens:].contiguous())

    def attend(self, q: Tensor, k: Tensor, v: Tensor, known: Tensor) -> Tensor:
        """Queries in blocks of `window`, each against its own block of keys and the block before it."""
        window, dtype = self.window, Projection.compute_dtype
        # Only differences of positions matter, so positions count from the first remembered key.
        cos, sin = rope_tables(torch.arange(k.shape[2], device=k.device), self.dim, self.theta)
        q = rope_half_split(q, cos[window:], sin[window:])
        k = rope_half_split(k, cos, sin)
        q, k, v = (to_chunks(pad_tokens(t, window), window) for t in (q, k, v))
        known = F.pad(known, (0, -known.shape[1] % window), value=1.0).unflatten(1, (-1, window))
        k, v = (torch.cat([t[:, :, :-1], t[:, :, 1:]], dim=3) for t in (k, v))
        known = torch.cat([known[:, :-1], known[:, 1:]], dim=2).bool()
        row = torch.arange(window, device=k.device)[:, None]
        column = torch.arange(2 * window, device=k.device)[None, :]
        band = (column > row) & (column <= row + window)
        mask = torch.where(band & known[:, :, None, :], 0.0, -torch.inf).to(dtype)
        # Blocks join the batch axis; a fully padded row sees its own (zero) key only.
        fold = lambda t: t.transpose(1, 2).flatten(0, 1).to(dtype)
        y = F.scaled_dot_product_attention(fold(q), fold(k), fold(v), attn_mask=mask.flatten(0, 1)[:, None])
        return y.unflatten(0, (q.shape[0], -1)).transpose(1, 2).flatten(2, 3).float()


def decayed_sum(q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, state: Tensor | None, power: int,
                chunk: int = 64) -> tuple[Tensor, Tensor]:
    """o_i = sum_{j<=i} (q_i.k_j)^power e^{G_i - G_j} v_j, with G the running sum of g. All [batch, heads, tokens, .].

    Degree 2 keeps its history through the outer products q (x) q and k (x) k.
    """
    tokens = q.shape[2]
    q, k, v = (to_chunks(pad_tokens(t, chunk), chunk) for t in (q, k, v))
    weights = torch.einsum("bhcid,bhcjd->bhcij", q, k).tril() ** power
    outer = lambda t: t if power == 1 else (t[..., :, None] * t[..., None, :]).flatten(-2)
    fq, fk, chunks = outer(q), outer(k), q.shape[2]
    if state is None:
        state = v.new_zeros(*v.shape[:2], fk.shape[-1], v.shape[-1])
    if g is None:
        added = torch.einsum("bhcjd,bhcjv->bhcdv", fk, v)
        running = torch.cat([state[:, :, None], added], dim=2).cumsum(2)
    else:
        inside = F.pad(g, (0, -tokens % chunk)).unflatten(2, (-1, chunk)).cumsum(-1)
        difference = inside[..., :, None] - inside[..., None, :]
        causal = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril()
        weights = weights * difference.masked_fill(~causal, -torch.inf).exp()
        added = torch.einsum("bhcjd,bhcjv->bhcdv", fk * (inside[..., -1:] - inside).exp()[..., None], v)
        fq = fq * inside.exp()[..., None]
        running = carry_chunks(inside[..., -1], added, state)
    o = torch.einsum("bhcij,bhcjv->bhciv", weights, v)
    o = o + torch.einsum("bhcid,bhcdv->bhciv", fq, running[:, :, :chunks])
    return o.flatten(2, 3)[:, :, :tokens], running[:, :, -1].contiguous()


def carry_chunks(total: Tensor, added: Tensor, state: Tensor) -> Tensor:
    """States before every chunk and after the last: one product with the decays between chunk ends."""
    end = F.pad(total.cumsum(-1), (1, 0))
    between = (end[..., :, None] - end[..., None, :])
    causal = torch.ones(between.shape[-2:], dtype=torch.bool, device=total.device).tril()
    between = between.masked_fill(~causal, -torch.inf).exp()
    return torch.einsum("bhij,bhjdv->bhidv", between, torch.cat([state[:, :, None], added], dim=2))


def with_ones(v: Tensor) -> Tensor:
    """A column of ones turns the weighted sum into sum and denominator at once."""
    return torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)


class LinearAttention(nn.Module):
    """Normalised linear attention with elu(x) + 1 features and an RMS norm per head on the output."""

    def __init__(self, width: int, s: Settings):
        super().__init__()
        self.heads, self.dim = s.take("num_heads"), s.take("head_dim")
        self.value_dim = s.take("value_head_dim", self.dim)
        self.eps, self.norm_eps = s.take("eps", 1e-10), s.take("norm_eps", 1e-5)
        s.require("feature_map", "elu")
        s.require("normalise", True)
        s.require("output_norm", True)
        self.q, self.k = (matrix(self.heads * self.dim, width) for _ in range(2))
        self.v = matrix(self.heads * self.value_dim, width)
        self.norm = vector(torch.ones(self.value_dim))
        self.o = matrix(width, self.heads * self.value_dim, std=0.0)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        q, k, v = (split_heads(t, self.heads) for t in project(x, self.q, self.k, self.v))
        total, state = decayed_sum(F.elu(q) + 1, F.elu(k) + 1, with_ones(v), None, state and state[0], power=1)
        # The output scale stands in numerator and denominator, so it weighs against eps only.
        scale = self.dim**-0.5
        y = scale * total[..., :-1] / (scale * total[..., -1:] + self.eps)
        return project(merge_heads(rms_norm(y, self.norm, self.norm_eps)), self.o)[0], (state,)


class PolynomialAttention(nn.Module):
    """Weights (q.k / sqrt d)^2 with a scalar decay per head, over one plus their sum."""

    def __init__(self, width: int, s: Settings):
        super().__init__()
        self.heads, self.dim = s.take("num_heads"), s.take("head_dim")
        self.value_dim = s.take("value_head_dim", self.dim)
        self.temperature = s.take("decay_temperature", 16)
        norm = s.take("qk_norm")
        self.eps = norm.get("eps", 1e-6)
        s.require("degree", 2)
        s.require("denominator", "one_plus_sum")
        s.require("decay", "scalar")
        self.q, self.k = (matrix(self.heads * self.dim, width) for _ in range(2))
        self.v = matrix(self.heads * self.value_dim, width)
        self.q_norm, self.k_norm = (vector(torch.ones(self.dim)) for _ in range(2))
        self.decay = matrix(self.heads, width, std=0.02)
        # Half-lives from about 16 tokens to about 1,600, so that heads start with different horizons.
        self.decay_bias = vector(torch.linspace(0, 5, self.heads))
        self.o = matrix(width, self.heads * self.value_dim, std=0.0)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        q, k, v, decay = project(x, self.q, self.k, self.v, self.decay)
        q = rms_norm(split_heads(q, self.heads), self.q_norm, self.eps) * self.dim**-0.5
        k = rms_norm(split_heads(k, self.heads), self.k_norm, self.eps)
        g = F.logsigmoid(decay.float() + self.decay_bias).transpose(1, 2) / self.temperature
        total, state = decayed_sum(q, k, with_ones(split_heads(v, self.heads)), g, state and state[0], power=2)
        y = total[..., :-1] / (1 + total[..., -1:])
        return project(merge_heads(y), self.o)[0], (state,)


def short_convolution(x: Tensor, weight: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Depthwise causal convolution over tokens and SiLU. The state is the last kernel - 1 inputs."""
    kernel, tokens = weight.shape[1], x.shape[1]
    if past is None:
        past = x.new_zeros(x.shape[0], kernel - 1, x.shape[2])
    x = torch.cat([past, x], dim=1)
    y = sum(x[:, i:i + tokens] * weight[:, i] for i in range(kernel))
    return F.silu(y), x[:, tokens:].contiguous()


class UnitLowerInverse(torch.autograd.Function):
    """(I + A)^-1 of strictly lower triangular A [..., n, n], n = 8 * 2^m, by doubling inverted diagonal blocks.

    Batched products instead of a triangular solve, whose batched form is several times slower on a CPU.
    """

    @staticmethod
    def forward(ctx, a: Tensor) -> Tensor:
        b = -diagonal_blocks(a, 8)
        square = b @ b
        eye = torch.eye(8, device=a.device)
        inverse = (eye + b) @ (eye + square) @ (eye + square @ square)
        while inverse.shape[-1] < a.shape[-1]:
            size = inverse.shape[-1]
            first, second = inverse[..., 0::2, :, :], inverse[..., 1::2, :, :]
            corner = -second @ diagonal_blocks(a, 2 * size)[..., size:, :size] @ first
            above = torch.cat([first, torch.zeros_like(first)], dim=-1)
            inverse = torch.cat([above, torch.cat([corner, second], dim=-1)], dim=-2)
        inverse = inverse.squeeze(-3)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        transposed = ctx.saved_tensors[0].transpose(-1, -2)
        return -(transposed @ gradient @ transposed).tril(-1)


def diagonal_blocks(a: Tensor, size: int) -> Tensor:
    """[..., n, n] -> [..., n / size, size, size]"""
    blocks = a.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
    return blocks.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None,
                     chunk: int = 64) -> tuple[Tensor, Tensor]:
    """S <- e^g S, then S <- S + beta k (v - S^T k)^T; o = S^T q. All [batch, heads, tokens, .], float32.

    One triangular inverse for all chunks at once; only the products with the state run chunk after chunk.
    """
    tokens, dim = q.shape[2], q.shape[3]
    q, k, v = (to_chunks(pad_tokens(t, chunk), chunk) for t in (q, k, v))
    g, beta = (F.pad(t, (0, -tokens % chunk)).unflatten(2, (-1, chunk)) for t in (g, beta))
    b = g.cumsum(-1)
    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril()
    decay = (b[..., :, None] - b[..., None, :]).masked_fill(~causal, -torch.inf).exp()
    erase = beta[..., None] * k
    keys = k.transpose(-1, -2)
    lower = (erase @ keys * decay).tril(-1)
    inverse = UnitLowerInverse.apply(lower)
    written, erased = inverse @ (beta[..., None] * v), inverse @ (erase * b.exp()[..., None])
    weights, read = q @ keys * decay, q * b.exp()[..., None]
    write = (k * (b[..., -1:] - b).exp()[..., None]).transpose(-1, -2)
    keep = b[..., -1].exp()[..., None, None]
    if state is None:
        state = v.new_zeros(*v.shape[:2], dim, v.shape[-1])
    outputs = []
    for c in range(q.shape[2]):
        x = written[:, :, c] - erased[:, :, c] @ state
        outputs.append(read[:, :, c] @ state + weights[:, :, c] @ x)
        state = keep[:, :, c] * state + write[:, :, c] @ x
    return torch.cat(outputs, dim=2)[:, :, :tokens], state


class GatedDeltaNet(nn.Module):
    def __init__(self, width: int, s: Settings):
        super().__init__()
        self.heads, self.dim = s.take("num_heads"), s.take("head_dim")
        self.value_dim, kernel = s.take("value_head_dim"), s.take("conv", 4)
        self.norm_eps = s.take("norm_eps", 1e-5)
        s.require("gate", "silu")
        s.require("negative_eigenvalues", False)
        keys, values = self.heads * self.dim, self.heads * self.value_dim
        self.q, self.k, self.v = matrix(keys, width), matrix(keys, width), matrix(values, width)
        self.a, self.beta = matrix(self.heads, width, std=0.02), matrix(self.heads, width, std=0.02)
        # Decay rates spread over three orders of magnitude: exp(a_log) * softplus(dt_bias) per token.
        step = torch.logspace(-3, -1, self.heads)
        self.a_log = vector(torch.linspace(1, 8, self.heads).log())
        self.dt_bias = vector(torch.log(torch.expm1(step)))
        taps = lambda channels: matrix(channels, kernel, std=0.5 / math.sqrt(kernel))
        self.q_conv, self.k_conv, self.v_conv = taps(keys), taps(keys), taps(values)
        self.gate = matrix(values, width)
        self.norm = vector(torch.ones(self.value_dim))
        self.o = matrix(width, values, std=0.0)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        past, memory = state if state is not None else (None, None)
        q, k, v, gate, a, beta = project(x, self.q, self.k, self.v, self.gate, self.a, self.beta)
        taps = torch.cat([self.q_conv, self.k_conv, self.v_conv])
        mixed, past = short_convolution(torch.cat([q, k, v], dim=-1).float(), taps, past)
        q, k, v = (split_heads(t, self.heads) for t in mixed.split([q.shape[-1], k.shape[-1], v.shape[-1]], -1))
        g = -self.a_log.exp() * F.softplus(a.float() + self.dt_bias)
        q = l2_norm(q) * self.dim**-0.5
        o, memory = gated_delta_rule(q, l2_norm(k), v, g.transpose(1, 2), beta.float().sigmoid().transpose(1, 2), memory)
        y = merge_heads(rms_norm(o, self.norm, self.norm_eps)) * F.silu(gate.float())
        return project(y, self.o)[0], (past, memory)


class TttLinear(nn.Module):
    """Test-time training of a linear map per head; all gradients of a mini-batch at the map it starts from.

    The bias is one more row of the map (inputs get a channel of ones). The state is the difference of the map
    from its learned start, so zeros are the empty history.
    """

    def __init__(self, width: int, s: Settings):
        super().__init__()
        self.heads, self.dim = s.take("num_heads"), s.take("head_dim")
        self.mini_batch, self.base_lr = s.take("mini_batch", 16), s.take("base_lr", 1.0)
        self.theta = s.take("rope_theta", 10000)
        self.ln_eps, self.post_norm_eps = s.take("ln_eps", 1e-6), s.take("post_norm_eps", 1e-6)
        s.require("gate", "none")
        s.require("conv", 0)
        heads, dim, inner = self.heads, self.dim, self.heads * self.dim
        self.q, self.k, self.v = (matrix(inner, width) for _ in range(3))
        self.lr, self.lr_bias = matrix(heads, width, std=0.02), vector(torch.zeros(heads))
        self.token_idx = vector(torch.zeros(self.mini_batch))
        self.w0 = vector(torch.randn(heads, dim, dim) * 0.02)
        self.b0 = vector(torch.zeros(heads, dim))
        self.ln_weight, self.ln_bias = vector(torch.ones(heads, dim)), vector(torch.zeros(heads, dim))
        self.post_norm_weight, self.post_norm_bias = vector(torch.ones(inner)), vector(torch.zeros(inner))
        self.o = matrix(width, inner, std=0.0)

    def forward(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        size, tokens = self.mini_batch, x.shape[1]
        q, k, v, lr = project(x, self.q, self.k, self.v, self.lr)
        q, k, v = (to_chunks(pad_tokens(split_heads(t, self.heads), size), size) for t in (q, k, v))
        cos, sin = rope_tables(torch.arange(size, device=x.device), self.dim, self.theta)
        q, k = rope_interleaved(q, cos, sin), rope_interleaved(k, cos, sin)
        position = torch.arange(1, size + 1, device=x.device)
        token = (1 / position + self.token_idx).clamp(min=0)
        rate = self.base_lr * (lr.float() + self.lr_bias).sigmoid().transpose(1, 2) / self.dim
        rate = F.pad(rate, (0, -tokens % size)).unflatten(2, (-1, size))
        eta = (token[:, None] * rate[..., None, :]).tril()
        difference = state[0] if state is not None else 0.0
        start = torch.cat([self.w0, self.b0[:, None]], dim=1)
        z, end = self.descend(with_ones(q), with_ones(k), v - k, eta, start + difference)
        y = q + self.layer_norm(z)
        y = merge_heads(y.flatten(2, 3)[:, :, :tokens])
        y = F.layer_norm(y, y.shape[-1:], self.post_norm_weight, self.post_norm_bias, self.post_norm_eps)
        # An open mini-batch cannot be continued from the map alone: poison the state rather than go on wrongly.
        return project(y, self.o)[0], (end - start if tokens % size == 0 else torch.full_like(end, torch.nan),)

    def layer_norm(self, z: Tensor) -> Tensor:
        z = F.layer_norm(z, z.shape[-1:], eps=self.ln_eps)
        return z * self.ln_weight[:, None, None] + self.ln_bias[:, None, None]

    def descend(self, q: Tensor, k: Tensor, target: Tensor, eta: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The dual form: outputs of every mini-batch and the map after the last. q, k [batch, heads, n, size, f+1]."""
        if weight.dim() == 3:
            weight = weight.expand(q.shape[0], -1, -1, -1)
        coupling = eta * (q @ k.transpose(-1, -2))
        write = (k * eta[..., -1, :, None]).transpose(-1, -2)
        both = torch.cat([k, q], dim=-2)
        outputs = []
        for n in range(q.shape[2]):
            z, zq = (both[:, :, n] @ weight).chunk(2, dim=2)
            gradient = self.gradient(z, target[:, :, n])
            outputs.append(zq - coupling[:, :, n] @ gradient)
            weight = weight - write[:, :, n] @ gradient
        return torch.stack(outputs, dim=2), weight

    def gradient(self, z: Tensor, target: Tensor) -> Tensor:
        """d/dz of 1/2 |LN(z) - target|^2"""
        gamma, beta = self.ln_weight[:, None], self.ln_bias[:, None]
        centred = z - z.mean(-1, keepdim=True)
        inverse = torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.ln_eps)
        normal = centred * inverse
        g = (gamma * normal + beta - target) * gamma
        return (g - g.mean(-1, keepdim=True) - normal * (g * normal).mean(-1, keepdim=True)) * inverse


KINDS: dict[str, type[nn.Module]] = {
    "rms_norm": RmsNorm,
    "gated_mlp": GatedMlp,
    "softmax_attention": SoftmaxAttention,
    "linear_attention": LinearAttention,
    "polynomial_attention": PolynomialAttention,
    "gated_delta_net": GatedDeltaNet,
    "ttt_linear": TttLinear,
}


def build(width: int, node: dict[str, Any]) -> nn.Module:
    settings = Settings(node)
    kind = settings.take("kind")
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not implemented here; known: {', '.join(KINDS)}")
    layer = KINDS[kind](width, settings)
    settings.finish()
    return layer
