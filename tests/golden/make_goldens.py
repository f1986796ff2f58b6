#!/usr/bin/env python3
"""Golden numbers of the mixer kinds, from other people's code.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 numpy
    venv/bin/pip install flash-linear-attention==0.6.0 triton transformers==5.23.0
    venv/bin/pip install einops && venv/bin/pip install --no-deps retention==1.0.7 performer-pytorch==1.1.4
    venv/bin/pip install --no-deps local-attention axial-positional-embedding hyper-connections   # performer-pytorch's
    git clone https://github.com/OpenNLPLab/cosFormer       # for its cosformer.py; likewise, in the same folder, the
                                                            # other repositories that README.md names
    venv/bin/pip install jax flax                           # for google-research's polysketchformer
    AUTHORS=$PWD PYTHONPATH=cosFormer:google-research venv/bin/python tests/golden/make_goldens.py   # *.json, *.bin

Runs on a CPU. Every case is a whole mixer y = f(x): projections, convolutions and gates written out here in a line or
two of PyTorch, the core taken from the library named in `source`. All inputs and weights are float32 numbers; the
computation and the stored y are float64 (`widened` says how). README.md describes the files.
"""

import __future__
import ast
import contextlib
import importlib.metadata
import inspect
import json
import math
import os
import pathlib
import sys
import types
from unittest import mock

import numpy
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).resolve().parent
TOKENS, PREFIX, WIDTH = 70, 23, 20  # PREFIX: where the reference is stopped and continued from its state
K, V = 24, 40


class Wide:
    """A module's `torch` whose float32 is float64."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@contextlib.contextmanager
def widened(*modules):
    """The references narrow to float32 (`.float()`, `torch.float32`); inside this they compute in float64."""
    narrow = torch.Tensor.float
    torch.Tensor.float = lambda self: self.double()
    for module in modules:
        module.torch = Wide()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = narrow
        for module in modules:
            module.torch = torch


def definitions(path, *names, **scope):
    """Functions, classes and constants of a file below $AUTHORS, by name, in float64 inside `widened`. The rest of the file does
    not run: its imports want a GPU or other versions, so what the definitions use of them is given in `scope`."""
    path = pathlib.Path(os.environ["AUTHORS"]) / path
    name_of = lambda part: part.targets[0].id if isinstance(part, ast.Assign) else getattr(part, "name", None)
    parts = [part for part in ast.parse(path.read_text()).body if name_of(part) in names]
    assert len(parts) == len(names), path
    for part in parts:
        part.decorator_list = []  # torch.compile and the like
    found = {"torch": Wide(), "nn": torch.nn, "F": F, "math": math, "np": numpy, **scope}
    code = compile(ast.Module(parts, []), path, "exec", __future__.annotations.compiler_flag)
    exec(code, found)
    return types.SimpleNamespace(**{name: found[name] for name in names})


class Case:
    """Draws named float32 tensors and writes one golden."""

    def __init__(self, name, kind, settings, source, tokens=TOKENS, width=WIDTH, causal=True):
        self.name, self.kind, self.settings, self.source = name, kind, settings, source
        self.causal = causal
        seed = int.from_bytes(name.encode(), "little") % (2**31)
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors = {}
        self.x = self.draw(tokens, width)

    def draw(self, *shape, scale=1.0, shift=0.0):
        numbers = torch.randn(*shape, generator=self.generator, dtype=torch.float64) * scale + shift
        return numbers.to(torch.float32).double()

    def uniform(self, *shape, low, high):
        numbers = torch.rand(*shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        return numbers.to(torch.float32).double()

    def keep(self, name, values):
        self.tensors[name] = values.to(torch.float32).double()
        return self.tensors[name]

    def matrix(self, name, rows, columns=None):
        columns = columns or self.x.shape[1]
        return self.keep(name, self.draw(rows, columns, scale=columns**-0.5))

    def gain(self, name, *shape):
        return self.keep(name, self.draw(*shape, scale=0.1, shift=1.0))

    def bias(self, name, *shape):
        return self.keep(name, self.draw(*shape, scale=0.3))

    def taps(self, name, channels, kernel=4):
        return self.keep(name, self.uniform(channels, kernel, low=-0.6, high=0.6))

    def project(self, name, rows):
        return self.x @ self.matrix(name, rows).T

    def write(self, y):
        """One JSON header and one file of little-endian numbers: x and the tensors float32, y float64."""
        arrays, blob = [], b""
        for name, values, dtype in [("x", self.x, "<f4"), *((n, t, "<f4") for n, t in self.tensors.items()), ("y", y, "<f8")]:
            array = values.detach().contiguous().numpy().astype(dtype)
            arrays.append({"name": name, "dtype": dtype[1:], "shape": list(array.shape), "offset": len(blob)})
            blob += array.tobytes()
        header = {
            "kind": self.kind, "settings": self.settings, "width": self.x.shape[1],
            **({} if self.causal else {"causal": False}), "source": self.source,
            "versions": {name: version(name) for name in ("torch", "flash-linear-attention", "transformers")},
            "arrays": arrays,
        }
        assert torch.isfinite(y).all() and y.shape == self.x.shape, self.name
        (HERE / f"{self.name}.json").write_text(json.dumps(header, indent=1) + "\n")
        (HERE / f"{self.name}.bin").write_bytes(blob)
        print(f"{self.name:32} {len(blob):7} bytes  |y| up to {y.abs().max():.3f}", file=sys.stderr)


def version(package):
    return importlib.metadata.version(package).split("+")[0]


def heads(x, width):
    """[T, H * width] -> [1, T, H, width]"""
    return x.reshape(1, x.shape[0], -1, width)


def convolve(x, taps, bias=None):
    """Depthwise, causal, the last tap on the current token. x [T, channels], taps [channels, kernel]"""
    kernel = taps.shape[1]
    return F.conv1d(x.T[None], taps[:, None], bias, padding=kernel - 1, groups=x.shape[1])[0, :, : x.shape[0]].T


def l2norm(x):
    return x / torch.sqrt((x * x).sum(-1, keepdim=True) + 1e-6)


def rms_norm(x, gain, eps=1e-5):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * gain


def flat(x):
    return x.reshape(x.shape[-3], -1)


def in_two_parts(op, state, *inputs, axis=1):
    """op(inputs, initial state) -> (o, final state), first on PREFIX tokens, then on the rest from the state it left."""
    first, state = op([x.narrow(axis, 0, PREFIX) for x in inputs], state)
    rest, _ = op([x.narrow(axis, PREFIX, x.shape[axis] - PREFIX) for x in inputs], state)
    return torch.cat([first, rest], axis)


# -- the recurrent kinds ---------------------------------------------------------------------------------------------


def delta_net(name, settings, activation=F.silu, norm=l2norm):
    from fla.ops.delta_rule import naive

    h = 2
    case = Case(name, "delta_net", {"num_heads": h, "head_dim": K, "value_head_dim": V, **settings},
                "fla.ops.delta_rule.naive.delta_rule_recurrence")
    convolved = settings.get("conv", 4) > 0
    conv = lambda n, y: convolve(y, case.taps(n + "_conv", y.shape[1])) if convolved else y
    q, k = (heads(activation(conv(n, case.project(n, h * K))), K) for n in "qk")
    v = heads(F.silu(conv("v", case.project("v", h * V))), V)
    strength = 2 if settings.get("negative_eigenvalues") else 1
    beta = strength * torch.sigmoid(case.project("beta", h))[None] if settings.get("beta", True) else torch.ones(1, TOKENS, h).double()
    with widened(naive):
        o = in_two_parts(
            lambda a, s: naive.delta_rule_recurrence(*a, initial_state=s), None,
            *(t.transpose(1, 2) for t in (norm(q), norm(k), v, beta)), axis=2).transpose(1, 2)
    o = rms_norm(o, case.gain("norm", V))
    if settings.get("gate") == "silu":
        o = o * F.silu(heads(case.project("gate", h * V), V))
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def gated_delta_net(name, settings, gate=F.silu):
    from fla.ops.gated_delta_rule import naive

    h, hv = 2, 4
    case = Case(name, "gated_delta_net",
                {"num_heads": h, "num_value_heads": hv, "head_dim": K, "value_head_dim": V, **settings},
                "fla.ops.gated_delta_rule.naive.naive_recurrent_gated_delta_rule")
    mixed = lambda n, rows: F.silu(convolve(case.project(n, rows), case.taps(n + "_conv", rows)))
    q, k = (l2norm(heads(mixed(n, h * K), K)).repeat_interleave(hv // h, 2) for n in "qk")
    v = heads(mixed("v", hv * V), V)
    a_log = case.keep("a_log", torch.log(case.uniform(hv, low=1, high=16)))
    dt_bias = case.keep("dt_bias", torch.log(torch.expm1(case.uniform(hv, low=0.01, high=0.1))))
    g = (-torch.exp(a_log) * F.softplus(case.project("a", hv) + dt_bias))[None]
    beta = torch.sigmoid(case.project("beta", hv))[None] * (2 if settings.get("negative_eigenvalues") else 1)
    with widened(naive):
        o = in_two_parts(
            lambda t, s: naive.naive_recurrent_gated_delta_rule(*t, initial_state=s, output_final_state=True), None,
            q, k, v, beta, g)
        chunked, _ = naive.naive_chunk_gated_delta_rule(q, k, v, g, beta, chunk_size=16)
    assert (o - chunked).abs().max() < 1e-12
    o = rms_norm(o, case.gain("norm", V))
    if gate:
        o = o * gate(heads(case.project("gate", hv * V), V))
    case.write(flat(o) @ case.matrix("o", WIDTH, hv * V).T)


def gated_delta_net_qwen3_next(name):
    """transformers' whole mixer; its fused projections are taken apart by key head."""
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next import modeling_qwen3_next as m

    h, hv = 2, 4
    case = Case(name, "gated_delta_net",
                {"num_heads": h, "num_value_heads": hv, "head_dim": K, "value_head_dim": V, "norm_eps": 1e-6},
                "transformers.models.qwen3_next.Qwen3NextGatedDeltaNet")
    config = Qwen3NextConfig(
        hidden_size=WIDTH, linear_num_key_heads=h, linear_num_value_heads=hv, linear_key_head_dim=K,
        linear_value_head_dim=V, linear_conv_kernel_dim=4, rms_norm_eps=1e-6, num_hidden_layers=1,
        layer_types=["linear_attention"])
    r = hv // h
    q, k, v, z = (case.matrix(n, rows) for n, rows in (("q", h * K), ("k", h * K), ("v", hv * V), ("gate", hv * V)))
    a, b = (case.matrix(n, hv) for n in ("a", "beta"))
    with widened(m):
        # Where flash-linear-attention is installed, transformers would call its GPU kernels.
        m.torch_chunk_gated_delta_rule = inspect.unwrap(m.torch_chunk_gated_delta_rule)
        mixer = m.Qwen3NextGatedDeltaNet(config, 0).double().eval()
        by_key_head = lambda *w: torch.cat([t.reshape(h, -1, WIDTH) for t in w], 1).reshape(-1, WIDTH)
        values = {
            "in_proj_qkvz.weight": by_key_head(q, k, v, z),
            "in_proj_ba.weight": by_key_head(b, a),
            "conv1d.weight": torch.cat([case.taps(n + "_conv", w.shape[0]) for n, w in (("q", q), ("k", k), ("v", v))])[:, None],
            "A_log": case.keep("a_log", torch.log(case.uniform(hv, low=1, high=16))),
            "dt_bias": case.keep("dt_bias", torch.log(torch.expm1(case.uniform(hv, low=0.01, high=0.1)))),
            "norm.weight": case.gain("norm", V),
            "out_proj.weight": case.matrix("o", WIDTH, hv * V),
        }
        assert r * h == hv
        mixer.load_state_dict(values)
        case.write(mixer(case.x[None])[0])


def gated_linear_attention(name, settings):
    from fla.ops.gla import naive

    h, kv, rank = 4, 2, 16
    case = Case(name, "gated_linear_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": K, "value_head_dim": V, **settings},
                "fla.ops.gla.naive.naive_recurrent_gla")
    conv = lambda n, y: F.silu(convolve(y, case.taps(n + "_conv", y.shape[1]))) if settings.get("conv") else y
    q = heads(conv("q", case.project("q", h * K)), K)
    k = heads(conv("k", case.project("k", kv * K)), K)
    v = heads(conv("v", case.project("v", kv * V)), V)
    low = case.project("decay_0", rank) @ case.matrix("decay_1", kv * K, rank).T
    g = heads(F.logsigmoid(low + case.bias("decay_bias", kv * K)) / 16, K)
    k, v, g = (t.repeat_interleave(h // kv, 2) for t in (k, v, g))
    with widened(naive):
        o = in_two_parts(
            lambda t, s: naive.naive_recurrent_gla(*t, initial_state=s, output_final_state=True), None, q, k, v, g)
    o = rms_norm(o, case.gain("norm", V)) * F.silu(heads(case.project("gate", h * V), V))
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def linear_attention(name, settings, features):
    from fla.ops.linear_attn import naive

    h, kv, k_width = 4, 2, settings["head_dim"]
    case = Case(name, "linear_attention", {"num_heads": h, "num_kv_heads": kv, "value_head_dim": V, **settings},
                "fla.ops.linear_attn.naive.naive_recurrent_linear_attn")
    normalise = settings.get("normalise", True)
    with widened(naive):
        q = features(heads(case.project("q", h * k_width), k_width))
        k = features(heads(case.project("k", kv * k_width), k_width)).repeat_interleave(h // kv, 2)
        v = heads(case.project("v", kv * V), V).repeat_interleave(h // kv, 2)
        # The scale is the one of the head, also where the features are wider.
        o = in_two_parts(
            lambda t, s: naive.naive_recurrent_linear_attn(
                *t, scale=k_width**-0.5, initial_state=s, output_final_state=True, normalize=normalise), None, q, k, v)
    if settings.get("output_norm"):
        o = rms_norm(o, case.gain("norm", V))
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def taylor_features(x):
    """fla.modules.feature_map.TaylorFeatureMap"""
    from fla.modules import feature_map

    with widened(feature_map):
        return feature_map.TaylorFeatureMap(x.shape[-1])(x)


def mamba2(name, settings, norm_eps=1e-5):
    """transformers' torch path, which must agree with simple_gla (q = C, k = B, v = dt x, g = dt A, scale 1) + D x."""
    from fla.ops.simple_gla import naive
    from transformers import Mamba2Config
    from transformers.models.mamba2 import modeling_mamba2 as m

    h, p, n, groups = 4, 10, 24, 2
    inner, conv_width = h * p, h * p + 2 * groups * n
    case = Case(name, "mamba2", {"num_heads": h, "head_dim": p, "state_dim": n, "num_groups": groups, **settings},
                "transformers.models.mamba2.Mamba2Mixer; fla.ops.simple_gla.naive.naive_recurrent_simple_gla")
    limit = (settings.get("dt_min", 0.0), settings.get("dt_max", math.inf))
    config = Mamba2Config(
        hidden_size=WIDTH, expand=inner // WIDTH, num_heads=h, head_dim=p, state_size=n, n_groups=groups,
        conv_kernel=4, chunk_size=16, use_bias=False, use_conv_bias=True, layer_norm_epsilon=norm_eps,
        time_step_limit=limit, num_hidden_layers=1)
    w = {
        "in_proj.weight": case.matrix("in", inner + conv_width + h),
        "conv1d.weight": case.taps("conv_weight", conv_width)[:, None],
        "conv1d.bias": case.bias("conv_bias", conv_width),
        "dt_bias": case.keep("dt_bias", torch.log(torch.expm1(case.uniform(h, low=0.01, high=0.5)))),
        "A_log": case.keep("a_log", torch.log(case.uniform(h, low=1, high=4))),
        "D": case.gain("d", h),
        "norm.weight": case.gain("norm", inner),
        "out_proj.weight": case.matrix("out", WIDTH, inner),
    }
    with widened(m):
        mixer = m.Mamba2Mixer(config, 0).double().eval()
        mixer.load_state_dict(w)
        y = mixer(case.x[None])[0]
    # The same by identity.
    z, xbc, dt = (case.x @ w["in_proj.weight"].T).split([inner, conv_width, h], -1)
    xbc = F.silu(convolve(xbc, w["conv1d.weight"][:, 0], w["conv1d.bias"]))
    x, b, c = xbc.split([inner, groups * n, groups * n], -1)
    x, b, c = heads(x, p), heads(b, n).repeat_interleave(h // groups, 2), heads(c, n).repeat_interleave(h // groups, 2)
    dt = F.softplus(dt + w["dt_bias"]).clamp(*limit)[None]
    with widened(naive):
        o = in_two_parts(
            lambda t, s: naive.naive_recurrent_simple_gla(*t, scale=1.0, initial_state=s), None,
            c, b, x * dt[..., None], -dt * torch.exp(w["A_log"]))
    o = flat(o + x * w["D"][:, None]) * F.silu(z)
    o = rms_norm(o.reshape(TOKENS, groups, -1), 1.0, norm_eps).reshape(TOKENS, inner) * w["norm.weight"]
    assert (o @ w["out_proj.weight"].T - y).abs().max() < 1e-12
    case.write(y)


def ttt_linear(name, settings):
    """The definition: one gradient step per token on the inner loss at the mini-batch's start, by autograd."""
    h, f, m = 2, K, 16
    case = Case(name, "ttt_linear", {"num_heads": h, "head_dim": f, "mini_batch": m, **settings},
                "torch.autograd.grad of 1/2 |LN(k W + b) - (v - k)|^2 at the mini-batch's start")
    xq = case.project("q", h * f)
    if settings.get("conv"):
        shared = xq
        xq, xk = (convolve(shared, case.taps(n, h * f), case.bias(n + "_bias", h * f)) for n in ("conv_q", "conv_k"))
    else:
        xk = case.project("k", h * f)
    xv = case.project("v", h * f)
    xq, xk, xv = (t.reshape(TOKENS, h, f) for t in (xq, xk, xv))
    lr = torch.sigmoid(case.project("lr", h) + case.bias("lr_bias", h)) * settings.get("base_lr", 1.0) / f
    token = (1 / torch.arange(1, m + 1, dtype=torch.float64) + case.keep("token_idx", case.draw(m, scale=0.05))).clamp_min(0)
    w, b = case.keep("w0", case.draw(h, f, f, scale=0.1)), case.bias("b0", h, f)
    gamma, beta = case.gain("ln_weight", h, f), case.bias("ln_bias", h, f)

    def rotated(t):  # pairs (2i, 2i + 1) as complex numbers
        angle = (torch.arange(TOKENS) % m)[:, None] * 10000.0 ** (-torch.arange(0, f, 2, dtype=torch.float64) / f)
        pairs = torch.view_as_complex(t.reshape(TOKENS, h, f // 2, 2).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)[:, None]).reshape(TOKENS, h, f)

    xq, xk = rotated(xq), rotated(xk)
    out = torch.empty(TOKENS, h, f, dtype=torch.float64)
    for i in range(h):
        norm = lambda z: F.layer_norm(z, (f,), gamma[i], beta[i], 1e-6)
        weight, shift = w[i].clone().requires_grad_(), b[i].clone().requires_grad_()
        for t in range(TOKENS):
            if t % m == 0:
                start = weight.detach().requires_grad_(), shift.detach().requires_grad_()
                sums = [torch.zeros_like(s) for s in start]
            loss = 0.5 * ((norm(xk[t, i] @ start[0] + start[1]) - (xv[t, i] - xk[t, i])) ** 2).sum()
            sums = [s + lr[t, i] * g for s, g in zip(sums, torch.autograd.grad(loss, start))]
            weight, shift = (s - token[t % m] * g for s, g in zip(start, sums))
            out[t, i] = (xq[t, i] + norm(xq[t, i] @ weight + shift)).detach()
    out = F.layer_norm(out.reshape(TOKENS, h * f), (h * f,), case.gain("post_norm_weight", h * f),
                       case.bias("post_norm_bias", h * f), 1e-6)
    if settings.get("gate") == "gelu_tanh":
        out = F.gelu(case.project("gate", h * f), approximate="tanh") * out
    case.write(out @ case.matrix("o", WIDTH, h * f).T)


# -- attention -------------------------------------------------------------------------------------------------------


def causal_mask(window=0):
    row, column = torch.arange(TOKENS)[:, None], torch.arange(TOKENS)[None]
    seen = (column <= row) & ((column > row - window) if window else True)
    return torch.where(seen, 0.0, -math.inf).double()[None, None]


def run_attention(case, module, modules, attention, rotary, config, weights, mask):
    """One of transformers' attention modules by its eager path."""
    from transformers import modeling_rope_utils

    config._attn_implementation = "eager"
    with widened(module, modeling_rope_utils, *modules), torch.no_grad():
        mixer = attention(config, 0).double().eval()
        mixer.load_state_dict(weights)
        cos_sin = rotary(config)(case.x[None], torch.arange(TOKENS)[None])
        return mixer(case.x[None], cos_sin, mask)[0][0]


def softmax_attention_qwen3_next(name):
    from transformers import Qwen3NextConfig
    from transformers.models.qwen3_next import modeling_qwen3_next as m

    h, kv, d = 4, 2, K
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": d, "rope": {"theta": 1000.0, "dim": d // 2},
                 "qk_norm": {"eps": 1e-6, "form": "one_plus"}, "gate": "sigmoid", "gate_packing": "per_query_head"},
                "transformers.models.qwen3_next.Qwen3NextAttention")
    config = Qwen3NextConfig(
        hidden_size=WIDTH, num_attention_heads=h, num_key_value_heads=kv, head_dim=d, rms_norm_eps=1e-6,
        num_hidden_layers=1, attention_bias=False, layer_types=["full_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5})
    weights = {
        "q_proj.weight": case.matrix("q", h * 2 * d), "k_proj.weight": case.matrix("k", kv * d),
        "v_proj.weight": case.matrix("v", kv * d), "o_proj.weight": case.matrix("o", WIDTH, h * d),
        "q_norm.weight": case.bias("q_norm", d), "k_norm.weight": case.bias("k_norm", d),
    }
    case.write(run_attention(case, m, [], m.Qwen3NextAttention, m.Qwen3NextRotaryEmbedding, config, weights, causal_mask()))


def softmax_attention_llama3(name):
    from transformers import LlamaConfig
    from transformers.models.llama import modeling_llama as m

    h, kv, d = 4, 2, K
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": d,
                 "rope": {"theta": 10000.0, "scaling": {"type": "llama3", **scaling}}},
                "transformers.models.llama.LlamaAttention, rope type llama3")
    config = LlamaConfig(
        hidden_size=WIDTH, num_attention_heads=h, num_key_value_heads=kv, head_dim=d, num_hidden_layers=1,
        max_position_embeddings=512, rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, **scaling})
    weights = {n + "_proj.weight": case.matrix(n, rows) for n, rows in (("q", h * d), ("k", kv * d), ("v", kv * d))}
    weights["o_proj.weight"] = case.matrix("o", WIDTH, h * d)
    case.write(run_attention(case, m, [], m.LlamaAttention, m.LlamaRotaryEmbedding, config, weights, causal_mask()))


def softmax_attention_gpt_oss(name):
    from transformers import GptOssConfig
    from transformers.models.gpt_oss import modeling_gpt_oss as m

    h, kv, d, window = 4, 2, K, 17
    yarn = {"factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 64, "truncate": False}
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": d, "window": window, "normaliser": "sink_softmax",
                 "bias": True, "output_bias": True, "rope": {"theta": 10000.0, "scaling": {"type": "yarn", **yarn}}},
                "transformers.models.gpt_oss.GptOssAttention, rope type yarn")
    config = GptOssConfig(
        hidden_size=WIDTH, num_attention_heads=h, num_key_value_heads=kv, head_dim=d, num_hidden_layers=1,
        sliding_window=window, layer_types=["sliding_attention"], attention_bias=True, max_position_embeddings=256,
        rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, **yarn})
    weights = {"sinks": case.bias("sinks", h)}
    for n, rows in (("q", h * d), ("k", kv * d), ("v", kv * d)):
        weights[n + "_proj.weight"], weights[n + "_proj.bias"] = case.matrix(n, rows), case.bias(n + "_bias", rows)
    weights["o_proj.weight"], weights["o_proj.bias"] = case.matrix("o", WIDTH, h * d), case.bias("o_bias", WIDTH)
    case.write(run_attention(case, m, [], m.GptOssAttention, m.GptOssRotaryEmbedding, config, weights, causal_mask(window)))


def softmax_attention_gemma2(name):
    from transformers import Gemma2Config
    from transformers.models.gemma2 import modeling_gemma2 as m

    h, kv, d, window = 4, 2, K, 19
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": d, "window": window, "rope": {"theta": 10000.0},
                 "scale": 20**-0.5, "score": ["scaled_dot", "logit_softcap"], "logit_softcap": {"cap": 1.5}},
                "transformers.models.gemma2.Gemma2Attention")
    config = Gemma2Config(
        hidden_size=WIDTH, num_attention_heads=h, num_key_value_heads=kv, head_dim=d, num_hidden_layers=1,
        query_pre_attn_scalar=20, attn_logit_softcapping=1.5, sliding_window=window, layer_types=["sliding_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    weights = {n + "_proj.weight": case.matrix(n, rows * d) for n, rows in (("q", h), ("k", kv), ("v", kv))}
    weights["o_proj.weight"] = case.matrix("o", WIDTH, h * d)
    case.write(run_attention(case, m, [], m.Gemma2Attention, m.Gemma2RotaryEmbedding, config, weights, causal_mask(window)))


def softmax_attention_diffllama(name):
    """DiffLlama pairs head h with h + H / 2, plait (and the paper's code) 2h with 2h + 1: its rows are reordered."""
    from transformers import DiffLlamaConfig
    from transformers.models.diffllama import modeling_diffllama as m

    h, d = 4, 12
    case = Case(name, "softmax_attention",
                {"num_heads": h, "head_dim": d, "value_head_dim": 2 * d, "rope": {"theta": 10000.0},
                 "readout": "differential_attention", "differential_attention": {"version": 1, "layer_index": 0}},
                "transformers.models.diffllama.DiffLlamaAttention")
    config = DiffLlamaConfig(
        hidden_size=WIDTH, num_attention_heads=h, num_key_value_heads=h, head_dim=d, num_hidden_layers=1, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    halves = lambda w: w.reshape(h // 2, 2, d, WIDTH).transpose(0, 1).reshape(h * d, WIDTH)
    weights = {n + "_proj.weight": halves(case.matrix(n, h * d)) for n in "qkv"}
    weights |= {n: case.bias(n, d) for n in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")}
    case.keep("head_norm", torch.ones(2 * d))
    weights["o_proj.weight"] = case.matrix("o", WIDTH, h * d)
    case.write(run_attention(case, m, [], m.DiffLlamaAttention, m.DiffLlamaRotaryEmbedding, config, weights, causal_mask()))


def softmax_attention_forgetting(name, window):
    from fla.ops.forgetting_attn import naive

    h, kv = 4, 2
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": K, "value_head_dim": V, "window": window or 0,
                 "score": ["scaled_dot", "forgetting_attention"]},
                "fla.ops.forgetting_attn.naive.naive_forgetting_attn")
    q, k, v = (heads(case.project(n, n_heads * w), w) for n, n_heads, w in (("q", h, K), ("k", kv, K), ("v", kv, V)))
    log_f = F.logsigmoid(case.project("forget", h) + case.bias("forget_bias", h))[None]
    with widened(naive):
        o = naive.naive_forgetting_attn(q, k, v, log_f, window_size=window)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def softmax_attention_fox_pro(name):
    """The core by fla; shift, norms and gate as the authors' block has them, written out (fla's layer has no shift)."""
    from fla.ops.forgetting_attn import naive

    h, kv = 4, 2
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": K, "value_head_dim": V, "shift_linear": True,
                 "score": ["scaled_dot", "forgetting_attention"], "qk_norm": {"eps": 1e-6, "gains": "per_head"},
                 "output_norm": {"eps": 1e-6}, "gate": "sigmoid"},
                "fla.ops.forgetting_attn.naive.naive_forgetting_attn; the rest by equations")
    q, k, v = (heads(case.project(n, n_heads * w), w) for n, n_heads, w in (("q", h, K), ("k", kv, K), ("v", kv, V)))

    def shifted(u, name):
        a = torch.sigmoid(case.project(name, kv))[None, :, :, None]
        return a * F.pad(u, (0, 0, 0, 0, 1, 0))[:, :-1] + (1 - a) * u

    k, v = shifted(k, "k_shift"), shifted(v, "v_shift")
    normed = lambda x, name: rms_norm(x, case.gain(name, x.shape[2] * x.shape[3]).reshape(x.shape[2:]), 1e-6)
    q, k = normed(q, "q_norm"), normed(k, "k_norm")
    log_f = F.logsigmoid(case.project("forget", h) + case.bias("forget_bias", h))[None]
    with widened(naive):
        o = naive.naive_forgetting_attn(q, k, v, log_f)
    o = flat(normed(o, "o_norm")) * torch.sigmoid(case.project("gate", h * V))
    case.write(o @ case.matrix("o", WIDTH, h * V).T)


def softmax_attention_fox_pro_authors(name):
    """The authors' layer with their torch forms of its norms, fla's core, and their shift kernel's sum written out."""
    from einops import rearrange
    from fla.ops.forgetting_attn import naive

    h, d = 2, WIDTH // 2
    case = Case(name, "softmax_attention",
                {"num_heads": h, "head_dim": d, "shift_linear": True, "score": ["scaled_dot", "forgetting_attention"],
                 "qk_norm": {"eps": 1e-5, "gains": "per_head"}, "output_norm": {"eps": 1e-6}, "gate": "sigmoid"},
                "github.com/zhixuan-lin/forgetting-transformer ForgettingAttentionLayer")
    place = "forgetting-transformer/src/forgetting_transformer/model/forgetting_transformer/"
    norms = definitions(place + "layernorm.py", "group_norm_ref", "GroupNormRef", rearrange=rearrange)
    gated = definitions(place + "fuse_norm_gate.py", "group_norm_gated_ref", "GroupNormGatedRef", rearrange=rearrange)
    shift = lambda x, before, now: before[..., None] * F.pad(x, (0, 0, 0, 0, 1, 0))[:, :-1] + now[..., None] * x
    core = lambda q, k, v, log_f, head_first, sm_scale, adaptive_threshold: naive.naive_forgetting_attn(
        *(t.transpose(1, 2) for t in (q, k, v, log_f)), scale=sm_scale).transpose(1, 2)
    code = definitions(place + "modeling_forgetting_transformer.py", "ShiftLinear", "ForgettingAttentionLayer",
                       rearrange=rearrange, token_shift=shift, forgetting_attention=core, GroupNorm=norms.GroupNormRef,
                       FusedGroupNormGated=lambda activation, **given: gated.GroupNormGatedRef(**given))
    values = {n + "_proj.weight": case.matrix(n, WIDTH) for n in "qo"}
    for n in "kv":
        values |= {n + "_proj.linear.weight": case.matrix(n, WIDTH), n + "_proj.shift_proj.weight": case.matrix(n + "_shift", h)}
    values |= {"fgate_proj.weight": case.matrix("forget", h), "fgate_proj.bias": case.bias("forget_bias", h),
               "ogate_proj.weight": case.matrix("gate", WIDTH), "output_norm.weight": case.gain("o_norm", WIDTH),
               "q_norm.weight": case.gain("q_norm", WIDTH), "k_norm.weight": case.gain("k_norm", WIDTH)}
    with widened(naive), torch.no_grad():
        mixer = code.ForgettingAttentionLayer(WIDTH, h, use_output_gate=True, use_output_norm=True, qk_norm=True,
                                              use_k_shift=True, use_v_shift=True)
        mixer.load_state_dict(values)
        case.write(mixer(case.x[None])[0][0])


def softmax_attention_parallax(name, window):
    from fla.ops.parallax import naive

    h, kv = 4, 2
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": K, "value_head_dim": V, "window": window or 0,
                 "readout": "parallax_attention"},
                "fla.ops.parallax.naive.naive_parallax")
    q, k, v, r = (heads(case.project(n, n_heads * w), w) for n, n_heads, w in (("q", h, K), ("k", kv, K), ("v", kv, V), ("r", h, K)))
    wide = lambda x: F.pad(x, (0, V - K))  # the reference wants one width
    with widened(naive):
        o = naive.naive_parallax(wide(q), wide(r), wide(k), v, scale=K**-0.5, window_size=window)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def softmax_attention_parallax_norm(name):
    """The core by fla; biases, norms and rope as its layer has them, written out (the layer's kernel needs a GPU)."""
    from fla.modules.rotary.ops import rotary_embedding_ref
    from fla.ops.parallax import naive

    h, kv, theta = 4, 2, 1e4
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": K, "bias": True, "qk_norm": {"eps": 1e-5},
                 "rope": {"theta": theta}, "readout": "parallax_attention"},
                "fla.ops.parallax.naive.naive_parallax; the rest as fla.layers.parallax")
    q, k, v, r = (heads(case.project(n, n_heads * K) + case.bias(f"{n}_bias", n_heads * K), K)
                  for n, n_heads in (("q", h), ("k", kv), ("v", kv), ("r", h)))
    angles = torch.arange(TOKENS, dtype=torch.float64)[:, None] * theta ** -(torch.arange(0, K, 2, dtype=torch.float64) / K)
    turned = lambda x, n: rotary_embedding_ref(rms_norm(x, case.gain(f"{n}_norm", K), 1e-5), angles.cos(), angles.sin())
    with widened(naive):
        o = naive.naive_parallax(turned(q, "q"), turned(r, "r"), turned(k, "k"), v, scale=K**-0.5)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * K).T)


def softmax_attention_stick_breaking(name, attend_current):
    from fla.ops.stickbreaking_attn import naive

    h, kv = 4, 2
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": K, "value_head_dim": V, "normaliser": "stick_breaking",
                 "stick_breaking": {"attend_current": attend_current}},
                "fla.ops.stickbreaking_attn.naive.naive_stickbreaking_attn")
    q, k, v = (heads(case.project(n, n_heads * w), w) for n, n_heads, w in (("q", h, K), ("k", kv, K), ("v", kv, V)))
    o, _ = naive.naive_stickbreaking_attn(q, k, v, attend_current=attend_current)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def softmax_attention_gated(name, granularity, bias):
    """The authors' gates lie in q_proj behind the queries of each key head's group."""
    h, kv, d = 4, 2, 10
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": d, "rope": {"theta": 1000.0}, "qk_norm": {"eps": 1e-6},
                 "gate": "sigmoid", "gate_granularity": granularity, "gate_packing": "per_kv_group",
                 "bias": bias, "output_bias": bias},
                "github.com/qiuzh20/gated_attention modeling_qwen3.py Qwen3Attention")
    code = definitions("gated_attention/modeling_qwen3.py", "Qwen3RMSNorm", "rotate_half", "apply_rotary_pos_emb",
                       "repeat_kv", "Qwen3Attention", Qwen3RotaryEmbedding=lambda config: None)
    rows = {"q": h * d + h * (d if granularity == "elementwise" else 1), "k": kv * d, "v": kv * d}
    values = {n + "_proj.weight": case.matrix(n, count) for n, count in rows.items()}
    values["o_proj.weight"] = case.matrix("o", WIDTH, h * d)
    if bias:
        values |= {n + "_proj.bias": case.bias(n + "_bias", count) for n, count in (*rows.items(), ("o", WIDTH))}
    values |= {n + "_norm.weight": case.gain(n + "_norm", d) for n in "qk"}
    angles = rotary_angles(d, 1000.0).repeat(1, 2)[None]
    with widened(), torch.no_grad():
        mixer = code.Qwen3Attention(types.SimpleNamespace(
            hidden_size=WIDTH, num_attention_heads=h, num_key_value_heads=kv, head_dim=d, max_position_embeddings=TOKENS,
            rope_theta=1000.0, attention_dropout=0.0, use_qk_norm=True, rms_norm_eps=1e-6, qkv_bias=bias,
            headwise_attn_output_gate=granularity == "headwise",
            elementwise_attn_output_gate=granularity == "elementwise"), 0).eval()
        mixer.load_state_dict(values)
        case.write(mixer(case.x[None], causal_mask(), position_embeddings=(angles.cos(), angles.sin()))[0][0])


def rotary_angles(columns, theta):
    """[token, pair]"""
    return torch.arange(TOKENS).double()[:, None] * theta ** -(torch.arange(0, columns, 2).double() / columns)


def softmax_attention_diff_v1(name):
    """The authors' plain module, with grouped heads; fla's rotary for its kernel. Its heads are half of plait's query heads."""
    from fla.modules.rotary.ops import rotary_embedding_ref

    h, kv, d, layer = 4, 2, 4, 3
    width = 2 * h * d
    case = Case(name, "softmax_attention",
                {"num_heads": 2 * h, "num_kv_heads": 2 * kv, "head_dim": d, "value_head_dim": 2 * d,
                 "rope": {"theta": 1000.0, "layout": "interleaved"},
                 "readout": "differential_attention", "differential_attention": {"version": 1, "layer_index": layer}},
                "github.com/microsoft/unilm Diff-Transformer/multihead_diffattn.py MultiheadDiffAttn", width=width)
    norm = definitions("unilm/Diff-Transformer/rms_norm.py", "RMSNorm")
    code = definitions("unilm/Diff-Transformer/multihead_diffattn.py", "repeat_kv", "lambda_init_fn", "MultiheadDiffAttn",
                       apply_rotary_emb=rotary_embedding_ref, RMSNorm=norm.RMSNorm)
    rows = {"q": 2 * h * d, "k": 2 * kv * d, "v": kv * 2 * d}
    values = {n + "_proj.weight": case.matrix(n, count) for n, count in rows.items()}
    values |= {n: case.bias(n, d) for n in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2")}
    values |= {"subln.weight": case.gain("head_norm", 2 * d), "out_proj.weight": case.matrix("o", width, 2 * h * d)}
    angles = rotary_angles(d, 1000.0)
    with widened(), torch.no_grad():
        mixer = code.MultiheadDiffAttn(width, layer, h, kv)
        mixer.load_state_dict(values)
        case.write(mixer(case.x[None], (angles.cos(), angles.sin()))[0])


def softmax_attention_diff_v2(name):
    """With torch's attention and fla's rotary for the kernels that want a GPU."""
    from fla.modules.rotary.ops import rotary_embedding_ref

    h, kv, d = 4, 2, 10  # query heads, twice the authors' num_heads
    case = Case(name, "softmax_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": d, "rope": {"theta": 1000.0, "layout": "interleaved"},
                 "readout": "differential_attention"},
                "github.com/microsoft/unilm Diff-Transformer/Diff-Transformer-V2/multihead_flashdiffv2.py MultiheadFlashDiffV2")
    attention = lambda q, k, v, causal: F.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in (q, k, v)), is_causal=causal, enable_gqa=True).transpose(1, 2)
    code = definitions("unilm/Diff-Transformer/Diff-Transformer-V2/multihead_flashdiffv2.py", "diff_func",
                       "MultiheadFlashDiffV2", apply_rotary_emb=rotary_embedding_ref, flash_attn_func=attention)
    values = {n + "_proj.weight": case.matrix(n, rows) for n, rows in
              (("q", h * d), ("k", kv * d), ("v", kv * d), ("lambda", h // 2))}
    values["o_proj.weight"] = case.matrix("o", WIDTH, h // 2 * d)
    angles = rotary_angles(d, 1000.0)
    with widened(), torch.no_grad():
        mixer = code.MultiheadFlashDiffV2(True, WIDTH, h // 2, kv, d)
        mixer.load_state_dict(values)
        case.write(mixer(case.x[None], (angles.cos(), angles.sin()))[0])


def sinkhorn_attention(name, max_iter):
    from einops import rearrange

    h, d = 2, K
    case = Case(name, "sinkhorn_attention", {"num_heads": h, "head_dim": d, "max_iter": max_iter, "output_bias": True},
                "github.com/michaelsdr/sinkformers vit-pytorch/vit_pytorch/vit.py Attention", causal=False)
    sinkhorn = definitions("sinkformers/vit-pytorch/vit_pytorch/sinkhorn.py", "SinkhornDistance")
    code = definitions("sinkformers/vit-pytorch/vit_pytorch/vit.py", "Attention", rearrange=rearrange,
                       SinkhornDistance=sinkhorn.SinkhornDistance)
    values = {"to_qkv.weight": torch.cat([case.matrix(n, h * d) for n in "qkv"]),
              "to_out.0.weight": case.matrix("o", WIDTH, h * d), "to_out.0.bias": case.bias("o_bias", WIDTH)}
    with widened(), torch.no_grad():
        mixer = code.Attention(WIDTH, h, d, max_iter=max_iter)
        mixer.load_state_dict(values)
        case.write(mixer(case.x[None])[0][0])


def softmax_free_attention(name, h, settings):
    """The kernels by the repository's own torch forms. SOFT++ takes one alpha for all heads: one head."""
    attention = "SoftmaxFreeNormAttention" if settings.get("normalised") else "SoftmaxFreeAttention"
    d, columns = WIDTH // h, 10  # 7 rows of the image: neither side is a multiple of a patch's
    case = Case(name, "softmax_free_attention", {"num_heads": h, "head_dim": d, "grid_width": columns, **settings},
                f"github.com/fudan-zvg/SOFT models/softmax_free_transformer.py {attention}", causal=False)
    names = ["SoftmaxFreeAttentionKernel", "SoftmaxFreeAttention", "SoftmaxFreeNormAttentionKernel", "SoftmaxFreeNormAttention"]
    inverse = definitions("SOFT/SOFT/kernel/inverse.py", "newton_inv")
    code = definitions("SOFT/models/softmax_free_transformer.py", "subtraction_gaussian_kernel_torch", *names,
                       newton_inverse_kernel=inverse.newton_inv)
    # Its constructor calls `super` with this name, which nothing has.
    code.SoftmaxFreeNormAttentionKernel.__init__.__globals__["SoftmaxFreeSymNormAttentionKernel"] = (
        code.SoftmaxFreeNormAttentionKernel)
    ratio, conv = settings["ratio"], settings.get("conv", 0)
    values = {}
    for n, there in (("q", "W_q"), ("v", "W_v"), ("o", "ff")):
        values[there + ".weight"], values[there + ".bias"] = case.matrix(n, WIDTH), case.bias(n + "_bias", WIDTH)
    landmark = case.matrix("landmark", d, ratio * ratio * d)
    values["attn.Qlandmark_op.weight"] = landmark.reshape(d, ratio, ratio, d).permute(0, 3, 1, 2)
    values["attn.Qnorm_act.0.weight"] = case.gain("landmark_norm", d)
    values["attn.Qnorm_act.0.bias"] = case.bias("landmark_norm_bias", d)
    if conv:
        values["attn.conv.weight"] = case.taps("taps", h, conv * conv).reshape(h, 1, conv, conv)
    with widened(), torch.no_grad(), mock.patch.object(torch.Tensor, "cuda", lambda self: self):
        mixer = getattr(code, attention)(WIDTH, h, ratio, conv, kernel_method="torch")
        mixer.load_state_dict(values)
        case.write(mixer(case.x[None], TOKENS // columns, columns)[0])


def sigmoid_attention(name, activation, settings, temperature=0.0, bias=0.0, alibi=False, norm=False):
    h, d = 2, WIDTH // 2
    case = Case(name, "softmax_attention",
                {"num_heads": h, "head_dim": d, "normaliser": "sigmoid_attention", "bias": True, "output_bias": True,
                 "sigmoid_attention": {"t": temperature, "bias": bias, **settings},
                 **({"score": ["scaled_dot", "alibi"]} if alibi else {}), **({"qk_norm": {"type": "layer"}} if norm else {})},
                f"github.com/apple/ml-sigmoid-attention attention_simulator Attention with {activation}")
    layers = "ml-sigmoid-attention/attention_simulator/src/attention_simulator/layers/"
    position = definitions(layers + "position_embedding.py", "_get_slopes", "get_slopes", "alibi")
    helpers = definitions(layers + "../helpers/utils.py", "unsqueeze_like")
    masking = definitions(layers + "masking.py", "softmax_masking_fn", unsqueeze_like=helpers.unsqueeze_like)
    code = definitions(layers + "attention.py", "Attention")
    values = {"qkv.weight": torch.cat([case.matrix(n, WIDTH) for n in "qkv"]), "proj.weight": case.matrix("o", WIDTH),
              "qkv.bias": torch.cat([case.bias(n + "_bias", WIDTH) for n in "qkv"]), "proj.bias": case.bias("o_bias", WIDTH)}
    for n in "qk" if norm else "":
        values |= {n + "_norm.weight": case.gain(n + "_norm", d), n + "_norm.bias": case.bias(n + "_norm_bias", d)}
    with widened(), torch.no_grad():
        mixer = code.Attention(
            WIDTH, getattr(definitions(layers + "activations.py", activation), activation), h, bias=True, qk_norm=norm,
            attn_bias=bias, attn_temp=temperature, masking_fn=masking.softmax_masking_fn(),
            attn_logits_transform=position.alibi if alibi else None)
        mixer.load_state_dict(values, strict=False)  # bias and temperature are buffers
        case.write(mixer(case.x[None], torch.ones(TOKENS, TOKENS).tril().bool())["attn_proj"][0])


def periodic_softmax(name, authors, function, settings):
    """All tokens see all tokens. authors: (place, weights_of(q, k, settings) [head, token, token])"""
    place, weights_of = authors
    h, d = 2, WIDTH // 2
    if function:  # plait's eps in the denominator is not theirs
        settings = {**settings, "normaliser": "periodic_softmax", "periodic_softmax": {"function": function, "eps": 1e-30}}
    case = Case(name, "softmax_attention", {"num_heads": h, "head_dim": d, **settings},
                f"github.com/slwang9353/Period-alternatives-of-Softmax {place}", causal=False)
    shift = lambda n: case.keep(n + "_bias", case.draw(h * d, scale=0.1, shift=1.5)) if settings.get("bias") else 0
    q, k, v = (heads(case.project(n, h * d) + shift(n), d)[0].transpose(0, 1) for n in "qkv")
    with widened(), torch.no_grad():
        weights = weights_of(q, k, settings)
    assert weights.abs().sum(-1).max() < 2, name  # else sums near zero make any rounding large
    case.write(flat((weights @ v).transpose(0, 1)) @ case.matrix("o", WIDTH, h * d).T)


def periodic_module(name):
    """A class of the module; its prenorm is `row_standardise`."""
    from einops import repeat

    def weights(q, k, settings):
        module = definitions("Period-alternatives-of-Softmax/vanilla for check/periodic_softmax.py", "Prenorm", name,
                             repeat=repeat)
        logits = q @ k.transpose(1, 2) * settings.get("scale", q.shape[2] ** -0.5)
        return getattr(module, name)(prenorm="row_standardise" in settings.get("score", []))(logits[None])[0]

    return f"vanilla for check/periodic_softmax.py {name}", weights


def periodic_demo(use_pro):
    """The layer of the demo up to its weights; norm and projections are given by q and k."""

    def weights(q, k, settings):
        demo = definitions("Period-alternatives-of-Softmax/demo.py", "sinmax", "map_norm", "TransformSingle")
        qkv = torch.cat([flat(x.transpose(0, 1)) for x in (q, k, k)], -1)
        layer = demo.TransformSingle(q.shape[0], qkv.shape[1] // 3, use_pro)
        layer.norm = layer.relu_QVK = torch.nn.Identity()
        del layer.QVK
        layer.QVK = lambda x: qkv[None]
        return torch.cat(layer(qkv[None, :, : qkv.shape[1] // 3])[1])

    return f"demo.py TransformSingle {use_pro}", weights


def scaled_signed_averaging(name, a, n):
    """The authors' layer on the path where it uses its own function, not torch's attention; it learns ln b and ln n."""
    h = 2
    case = Case(name, "softmax_attention",
                {"num_heads": h, "head_dim": WIDTH // h, "bias": True, "output_bias": True,
                 "score": ["scaled_dot", "scaled_signed_averaging"],
                 "scaled_signed_averaging": {"b": math.exp(a), "n": math.exp(n)}},
                "github.com/omyokun/SSA GPT2SSA/model.py CausalSelfAttention")
    code = definitions("SSA/GPT2SSA/model.py", "CausalSelfAttention")
    values = {"c_attn.weight": torch.cat([case.matrix(n_, WIDTH) for n_ in "qkv"]), "c_proj.weight": case.matrix("o", WIDTH),
              "c_attn.bias": torch.cat([case.bias(n_ + "_bias", WIDTH) for n_ in "qkv"]), "c_proj.bias": case.bias("o_bias", WIDTH),
              "a": torch.tensor([a], dtype=torch.float64), "n": torch.tensor(n, dtype=torch.float64)}
    with widened(), torch.no_grad():
        mixer = code.CausalSelfAttention(types.SimpleNamespace(n_embd=WIDTH, n_head=h, block_size=TOKENS, bias=True, dropout=0.0))
        mixer.load_state_dict(values)
        mixer.flash, mixer.bias = False, torch.ones(TOKENS, TOKENS).tril()[None, None]
        case.write(mixer(case.x[None])[0])


def self_adjust_softmax(name, variant):
    """`attention` of the training code, without its narrowing to half precision. Where all logits of a row are negative it adds one
    of its two 1e-10 only, hence the biases: every row has a positive one."""
    h, d = 2, 10
    case = Case(name, "softmax_attention",
                {"num_heads": h, "head_dim": d, "bias": True, "readout": "self_adjust_softmax",
                 "self_adjust_softmax": {"variant": variant}},
                "github.com/HKUDS/SepLLM Training-SepLLM/megatron/model/transformer.py ParallelSelfAttention.attention")
    mpu = types.SimpleNamespace(get_cuda_rng_tracker=lambda: types.SimpleNamespace(fork=contextlib.nullcontext))
    code = definitions("SepLLM/Training-SepLLM/megatron/model/transformer.py", "ParallelSelfAttention", mpu=mpu,
                       exists=lambda value: value is not None)
    seen = torch.ones(TOKENS, TOKENS).tril().bool()
    module = types.SimpleNamespace(
        USE_SEP_ATTN_KERNEL_ACCELERATOR=False, USE_ORIGINAL_FULL_ATTEN=False, USE_SA_SOFTMAX=variant == "normalised",
        USE_SA_SOFTMAX_NO_DENO=variant == "plain", SA_Numerator_Bias=0.0, SA_Denominator_Bias=1e-10, norm_factor=d**0.5,
        use_cache=False, rpe=None, pos_emb="none", attention_dropout=lambda x: x,
        scale_mask_softmax=lambda s, mask: s.masked_fill(~seen, -math.inf).softmax(-1))
    shift = lambda n: case.keep(n + "_bias", case.draw(h * d, scale=0.1, shift=0.8))
    q, k, v = (heads(case.project(n, h * d) + shift(n), d).transpose(0, 1) for n in "qkv")  # [token, 1, head, channel]
    logits = torch.einsum("ibhd,jbhd->hij", q, k).masked_fill(~seen, -math.inf)
    assert (logits.amax(-1) > 0).all() and (logits[:, -1] < 0).any(), name
    with (widened(), mock.patch.object(torch.cuda, "current_device", lambda: "cpu"),
          mock.patch.object(torch.Tensor, "half", lambda self: self)):
        o = code.ParallelSelfAttention.attention(module, q, k, v, None, None)
    case.write(flat(o[0].transpose(0, 1)) @ case.matrix("o", WIDTH, h * d).T)


def normalization_equivariance(name, wrapper, form, closes):
    """One of the pair of nodes: what the authors' wrapper hands to its network, or makes of what that returns, x1."""
    case = Case(name, "normalization_equivariance", {"form": form},
                f"github.com/YoussefSaied/normalization_equivariance se/models/wrappers.py {wrapper}", causal=False)
    code = definitions("normalization_equivariance/se/models/wrappers.py", "pred_mode_adapter", wrapper)
    case.x = (3 * case.x - 2).to(torch.float32).double()
    returned, handed = case.draw(TOKENS, WIDTH), []
    network = lambda signal: handed.append(signal) or returned[None, None]
    made = getattr(code, wrapper)(network, "residual" if form == "residual" else "direct")(case.x[None, None])
    if closes:
        case.keep("x1", returned)
    case.write((made if closes else handed[0])[0, 0])


def global_pathway(name, gate, theirs):
    dim = 24
    case = Case(name, "global_pathway", {"dim": dim, "gate": gate},
                "github.com/KempnerInstitute/attention_sink src/blocks.py GlobalPathway", causal=False)
    code = definitions("attention_sink/src/blocks.py", "GlobalPathway")
    rows = code.GlobalPathway.GATE_LOGITS[theirs]
    values = {"w_P.weight": case.matrix("pool", 1), "W_VG.weight": case.matrix("value", dim),
              "W_OG.weight": case.matrix("o", WIDTH, dim), "gate.weight": case.matrix("gate", rows),
              "gate.bias": case.bias("gate_bias", rows)}
    with widened(), torch.no_grad():
        branch = code.GlobalPathway(WIDTH, dim, theirs)
        branch.load_state_dict(values)
        case.write(branch(case.x[None])[0])


def structured(name, attention, settings, config, weights, tokens=TOKENS):
    """One of the authors' attention classes by its state dict; weights(case, num_heads) are those besides v and the output."""
    h = 2
    case = Case(name, "softmax_attention", {"num_heads": h, "head_dim": WIDTH // h, "output_bias": True, **settings},
                f"github.com/YilunKuang/structured-attention src/model.py {attention}", tokens=tokens)
    blocks = ("BilinearBTT_W_K_Projection", "BilinearBTT_W_Q_Projection", "BilinearMLRProjection")
    code = definitions("structured-attention/src/model.py", "LayerNorm", *blocks, attention,
                       divisors=lambda n: [d for d in range(1, n + 1) if n % d == 0])
    values = weights(case, h) | {"c_attn_v.weight": case.matrix("v", WIDTH)}
    values["c_attn_v.bias"] = case.bias("v_bias", WIDTH) if settings.get("bias") else torch.zeros(WIDTH)
    values |= {"c_proj.weight": case.matrix("o", WIDTH), "c_proj.bias": case.bias("o_bias", WIDTH)}
    with widened(), torch.no_grad():
        mixer = getattr(code, attention)(types.SimpleNamespace(
            d_model=WIDTH, n_head=h, d_head=WIDTH // h, d_qk_head=WIDTH // h, block_size=tokens, dropout=0.0, bias=True,
            split_qkv=True, do_qk_ln=True, manual_disable_flash_att=True, link_function="softmax", debug=False,
            **{"mlr_divide_by_num_levels": False, "mlr_block_divide_by_num_levels": False, **config}))
        mixer.load_state_dict(values, strict=False)  # what is missing are masks
        assert set(values) == {key for key, _ in mixer.named_parameters()}, name
        case.write(mixer(case.x[None])[0])


def mlr_attention(name, divide_by):
    """The authors' blocks divide the sequence, which is one block of the first level."""

    def weights(case, h):
        values = {}
        for n in "qk":
            values[f"c_attn_{n}.weight"], values[f"c_attn_{n}.bias"] = case.matrix(n, WIDTH), case.bias(n + "_bias", WIDTH)
            values[f"ln_{n}.weight"] = case.gain(n + "_norm", WIDTH // h)
            values[f"ln_{n}.bias"] = case.bias(n + "_norm_bias", WIDTH // h)
        return values

    ranks, tokens = [4, 3, 1, 2], 72
    structured(name, "AttentionMLR",
               {"score": ["mlr_attention"], "qk_norm": {"type": "layer"}, "bias": True,
                "mlr_attention": {"ranks": ranks, "block_size": tokens, "divide_by": divide_by}},
               {"mlr_rank_list": "|".join(map(str, ranks)), "mlr_block_size_list": "default",
                "mlr_divide_by_num_levels": divide_by == "levels",
                "mlr_block_divide_by_num_levels": divide_by == "shared_levels"}, weights, tokens)


def below_bound(case, shape):
    """The authors divide a block [.., in, out] by max(1, rms / bound), here by 1: its rms is 0.7 of the bound."""
    *_, inputs, outputs = shape
    numbers = case.draw(*shape)
    wanted = 0.7 * min(inputs, outputs) ** 0.5 / inputs
    return (numbers * wanted / (numbers * numbers).mean().sqrt()).to(torch.float32).double()


def bilinear_mlr(name, scale, divide):
    ranks = [4, 3, 3]

    def weights(case, h):
        values = {}
        for n in "qk":
            for level, rank in enumerate(ranks):
                block = below_bound(case, (2**level, WIDTH // 2**level, h * rank))
                case.keep(f"{n}_{level}", block.transpose(1, 2))
                values[f"bilinear_mlr_w{n}.{level}.weight"] = block
            columns = [rank * 2**level for level, rank in enumerate(ranks)]
            for kind, vector in (("weight", case.gain(n + "_norm", sum(columns))),
                                 ("bias", case.bias(n + "_norm_bias", sum(columns)))):
                values |= {f"bilinear_mlr_ln_w{n}.{i}.{kind}": part for i, part in enumerate(vector.split(columns))}
        return values

    structured(name, "BilinearMLRAttention",
               {"score": ["bilinear_mlr"], "qk_norm": {"type": "layer"},
                "bilinear_mlr": {"ranks": ranks, "scale": scale, "divide_by_levels": divide}},
               {"mlr_rank_list": "|".join(map(str, ranks)), "bilinear_mlr_muP_attn_logits_scaling": scale == "mup",
                "mlr_divide_by_num_levels": divide}, weights)


def bilinear_btt(name, rank, scale):
    a, b = 4, 5  # of WIDTH

    def weights(case, h):
        key = below_bound(case, (a, b, h * b * rank))
        query = below_bound(case, (h * b, a * rank, a)).transpose(1, 2)
        case.keep("btt_k", key.transpose(1, 2)), case.keep("btt_q", query)
        return {"bilinear_btt_wk.weight": key, "bilinear_btt_wq.weight": query,
                "bilinear_btt_ln_PLPRXT.weight": case.gain("k_norm", WIDTH),
                "bilinear_btt_ln_PLPRXT.bias": case.bias("k_norm_bias", WIDTH)}

    structured(name, "BilinearBTTAttention",
               {"score": ["bilinear_btt"], "qk_norm": {"type": "layer"}, "bilinear_btt": {"rank": rank, "scale": scale}},
               {"btt_tt_dim": 2, "btt_tt_rank": rank, "bilinear_btt_muP_attn_logits_scaling": scale == "mup",
                "bilinearBTT_use_extra_LN_on_X": False}, weights)


def latent_attention_deepseek_v3(name):
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as m

    h, nope, rope, v, q_rank, rank = 3, 12, 10, 14, 18, 26
    case = Case(name, "latent_attention",
                {"num_heads": h, "qk_nope_head_dim": nope, "qk_rope_head_dim": rope, "value_head_dim": v,
                 "q_lora_rank": q_rank, "kv_lora_rank": rank, "rope": {"theta": 1000.0, "layout": "interleaved"}},
                "transformers.models.deepseek_v3.DeepseekV3Attention")
    config = DeepseekV3Config(
        hidden_size=WIDTH, num_attention_heads=h, num_key_value_heads=h, num_hidden_layers=1, q_lora_rank=q_rank,
        kv_lora_rank=rank, qk_nope_head_dim=nope, qk_rope_head_dim=rope, v_head_dim=v, rope_interleave=True,
        attention_bias=False, rope_parameters={"rope_type": "default", "rope_theta": 1000.0})
    weights = {
        "q_a_proj.weight": case.matrix("q_a", q_rank), "q_a_layernorm.weight": case.gain("q_a_norm", q_rank),
        "q_b_proj.weight": case.matrix("q_b", h * (nope + rope), q_rank),
        "kv_a_proj_with_mqa.weight": case.matrix("kv_a", rank + rope), "kv_a_layernorm.weight": case.gain("kv_a_norm", rank),
        "kv_b_proj.weight": case.matrix("kv_b", h * (nope + v), rank), "o_proj.weight": case.matrix("o", WIDTH, h * v),
    }
    case.write(run_attention(case, m, [], m.DeepseekV3Attention, m.DeepseekV3RotaryEmbedding, config, weights, causal_mask()))


def latent_attention_kimi_linear(name):
    from transformers.models.kimi_linear import configuration_kimi_linear, modeling_kimi_linear as m

    h, nope, shared, v, rank = 4, 14, 6, 10, 22
    case = Case(name, "latent_attention",
                {"num_heads": h, "qk_nope_head_dim": nope, "qk_rope_head_dim": shared, "value_head_dim": v,
                 "kv_lora_rank": rank},
                "transformers.models.kimi_linear.KimiLinearAttention")
    config = configuration_kimi_linear.KimiLinearConfig(
        hidden_size=WIDTH, num_attention_heads=h, num_key_value_heads=h, num_hidden_layers=1, q_lora_rank=None,
        kv_lora_rank=rank, qk_nope_head_dim=nope, qk_rope_head_dim=shared, v_head_dim=v, attention_bias=False)
    config._attn_implementation = "eager"
    weights = {
        "q_proj.weight": case.matrix("q", h * (nope + shared)), "kv_a_proj_with_mqa.weight": case.matrix("kv_a", rank + shared),
        "kv_a_layernorm.weight": case.gain("kv_a_norm", rank), "kv_b_proj.weight": case.matrix("kv_b", h * (nope + v), rank),
        "o_proj.weight": case.matrix("o", WIDTH, h * v),
    }
    with widened(m), torch.no_grad():
        mixer = m.KimiLinearAttention(config, 0).double().eval()
        mixer.load_state_dict(weights)
        case.write(mixer(case.x[None], causal_mask())[0][0])


def path_attention(name, kv, settings):
    from fla.ops.path_attn import naive

    h = 4
    case = Case(name, "path_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": K, "value_head_dim": V, **settings},
                "fla.ops.path_attn.naive.naive_path_attn")
    q, k, v = (heads(case.project(n, n_heads * w), w) for n, n_heads, w in (("q", h, K), ("k", kv, K), ("v", kv, V)))
    if "qk_norm" in settings:
        q, k = (rms_norm(t, case.gain(n, K)) for t, n in ((q, "q_norm"), (k, "k_norm")))
    rank = settings.get("w_rank", 32)
    w = case.project("w_down", rank) @ case.matrix("w", kv * K, rank).T if rank else case.project("w", kv * K)
    if settings.get("conv", 3):
        w = F.silu(convolve(w, case.taps("w_conv", kv * K, 3)))
    beta = 2 * torch.sigmoid(case.project("beta", kv) + case.bias("beta_bias", kv))[None]
    log_f = torch.zeros(1, TOKENS, h)
    if settings.get("forget_gate"):
        log_f = F.logsigmoid(case.project("forget", h) + case.bias("forget_bias", h))[None]
    with widened(naive):
        o = naive.naive_path_attn(q, k, v, l2norm(heads(w, K)), beta, log_f, K**-0.5, chunk_size=16)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def wall_attention(name, kv, settings):
    """fla's sums are a Triton kernel in units of ln 2 rounded to float32; here they are torch's, ln 2 is float64's."""
    from fla.ops.wall_attn import naive

    h = 4
    case = Case(name, "wall_attention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": K, "value_head_dim": V, **settings},
                "fla.ops.wall_attn.naive.naive_wall_attn")
    q, k, v = (heads(case.project(n, n_heads * w), w) for n, n_heads, w in (("q", h, K), ("k", kv, K), ("v", kv, V)))
    if "qk_norm" in settings:
        q, k = (rms_norm(t, case.gain(n, t.shape[2] * K).reshape(-1, K)) for t, n in ((q, "q_norm"), (k, "k_norm")))
    gates = case.project("decay", h * K) + case.keep("decay_bias", case.draw(h * K, shift=4.0, scale=2.0))
    naive.RCP_LN2 = 1 / math.log(2)
    naive.chunk_global_cumsum = lambda g, cu_seqlens, scale: torch.cumsum(g, 1) * scale
    sinks = case.bias("sinks", h) if settings.get("normaliser") == "sink_softmax" else None
    scalar = None
    if settings.get("forget_gate"):
        scalar = F.logsigmoid(case.project("forget", h) + case.bias("forget_bias", h))[None]
    with widened(naive):
        o = naive.naive_wall_attn(q, k, v, heads(F.logsigmoid(gates), K), scale=K**-0.5,
                                  window_size=settings.get("window"), sink_bias=sinks, g_scalar=scalar)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def nats_l(name, settings):
    """The delta rule block by block from the state the route leaves; the attention under the routes' mask."""
    from fla.ops.gated_delta_rule import naive

    h, ha, block = 2, 4, 16
    case = Case(name, "nats_l",
                {"num_heads": h, "head_dim": K, "value_head_dim": V, "num_attention_heads": ha, "block": block, **settings},
                "fla.ops.gated_delta_rule.naive.naive_recurrent_gated_delta_rule, "
                "torch.nn.functional.scaled_dot_product_attention")
    key, value = h * K // ha, h * V // ha
    mixed = lambda n, rows: F.silu(convolve(case.project(n, rows), case.taps(n + "_conv", rows)))
    q, k, v = mixed("q", h * K), mixed("k", h * K), mixed("v", h * V)
    a_log = case.keep("a_log", torch.log(case.uniform(h, low=1, high=16)))
    dt_bias = case.keep("dt_bias", torch.log(torch.expm1(case.uniform(h, low=0.01, high=0.1))))
    g = (-torch.exp(a_log) * F.softplus(case.project("a", h) + dt_bias))[None]
    beta = torch.sigmoid(case.project("beta", h))[None] * (2 if settings.get("negative_eigenvalues") else 1)
    route = case.matrix("route", 2 * h)
    whole = TOKENS // block
    means = case.x[: whole * block].reshape(whole, block, WIDTH).mean(1)
    attends = (means @ route.T).reshape(whole, h, 2).argmax(-1) == 0  # [block, head]
    assert attends.any() and not attends.all(), name

    state, outputs = torch.zeros(1, h, K, V).double(), []
    with widened(naive):
        for b in range(whole + 1):
            rows = slice(b * block, (b + 1) * block)
            o, end = naive.naive_recurrent_gated_delta_rule(
                l2norm(heads(q[rows], K)), l2norm(heads(k[rows], K)), heads(v[rows], V), beta[:, rows], g[:, rows],
                initial_state=state, output_final_state=True)
            outputs.append(o)
            decay = g[0, rows].sum(0).exp() if settings.get("decay_for_non_gdn_blocks", True) else torch.ones(h)
            if b < whole:
                state = torch.where(attends[b][:, None, None], decay[:, None, None] * state, end)
    o = flat(torch.cat(outputs, 1))

    place = torch.arange(TOKENS) // block
    kept = torch.cat((attends, torch.zeros(1, h, dtype=torch.bool)))[place].T  # [head, token]
    mask = (torch.arange(TOKENS)[:, None] >= torch.arange(TOKENS)) & ((place[:, None] == place) | kept[:, None])
    split = lambda x, width: heads(x, width).transpose(1, 2)
    attention = F.scaled_dot_product_attention(
        rms_norm(split(q, key), case.gain("q_norm", key)), rms_norm(split(k, key), case.gain("k_norm", key)),
        split(v, value), attn_mask=mask.repeat_interleave(ha // h, 0)[None]).transpose(1, 2)
    share = (q @ case.matrix("mix", 2 * ha, h * K).T).reshape(TOKENS, ha, 2).softmax(-1)
    y = rms_norm(heads(o, value)[0], case.gain("norm", value)) * share[..., :1]
    y = y + rms_norm(attention[0], case.gain("attention_norm", value)) * share[..., 1:]
    y = y.reshape(TOKENS, h * V) * F.silu(case.project("gate", h * V))
    case.write(y @ case.matrix("o", WIDTH, h * V).T)


def mesa_net(name, settings, source):
    """source: the function of the module that computes the core, or its text with the decoding kernel's start."""
    from fla.ops.mesa_net import naive

    h = 2
    case = Case(name, "mesa_net", {"num_heads": h, "head_dim": K, **settings}, f"fla.ops.mesa_net.naive.{source}")
    mixed = lambda n: l2norm(heads(F.silu(convolve(case.project(n, h * K), case.taps(n + "_conv", h * K))), K))
    q, k = mixed("q"), mixed("k")
    v = heads(case.project("v", h * K), K)
    g = F.logsigmoid(case.project("a", h) + case.bias("a_bias", h))[None]
    beta = torch.sigmoid(case.project("beta", h) + case.bias("beta_bias", h))[None]
    lamb = F.softplus(case.bias("lambda", h * K)).reshape(h, K) + settings.get("lambda_min", 0.25)
    steps = settings.get("cg_steps", 30)
    with widened(naive):
        o = in_two_parts(lambda t, s: MESA[source](naive, t, lamb, steps, s or (None, None)), None, q, k, v, g, beta)
    o = rms_norm(o, case.gain("norm", K))
    if settings.get("gate") == "silu":
        o = o * F.silu(heads(case.project("gate", h * K), K))
    case.write(flat(o) @ case.matrix("o", WIDTH, h * K).T)


def mesa_chunk(naive, t, lamb, steps, state):
    q, k, v, g, beta = t
    o, *state = naive.naive_mesa_net_CG(q, k, v, g, lamb, beta, q.shape[1], steps, *state)
    return o, state


def mesa_exact(naive, t, lamb, steps, state):
    q, k, v, g, beta = t
    o, *state = naive.naive_mesa_net_exact(q, k, v, g, lamb, beta, *state)
    return o, state


def mesa_one_step(naive, t, lamb, steps, state):
    """The decoding kernel adds 1e-5 to the diagonal it starts from, its naive form does not: put in here."""
    text = inspect.getsource(naive.naive_mesa_net_decoding_one_step)
    start = "x = q / (diag_H + lamb)"
    assert text.count(start) == 1
    scope = {"torch": naive.torch}
    exec(text.replace(start, "x = q / (diag_H + lamb + 1e-5)"), scope)
    rows, zeros = [], torch.zeros(1, lamb.shape[0], K, K)
    state = [zeros if s is None else s for s in state]
    for q, k, v, g, beta in zip(*(x.unbind(1) for x in t)):
        o, *state = scope["naive_mesa_net_decoding_one_step"](q, k, v, g, lamb, beta, *state, steps)
        rows.append(o)
    return torch.stack(rows, 1), state


MESA = {
    "naive_mesa_net_CG": mesa_chunk,
    "naive_mesa_net_exact": mesa_exact,
    "naive_mesa_net_decoding_one_step": mesa_one_step,
}


def polynomial_attention(name):
    from fla.ops.rebased import naive

    h, k_width = 2, K
    case = Case(name, "polynomial_attention",
                {"num_heads": h, "head_dim": k_width, "value_head_dim": V, "degree": 2, "denominator": "sum", "eps": 1e-6},
                "fla.ops.rebased.naive.naive_parallel_rebased")
    q, k, v = (heads(case.project(n, h * w), w).transpose(1, 2) for n, w in (("q", k_width), ("k", k_width), ("v", V)))
    with widened(naive):
        o = naive.naive_parallel_rebased(q, k, v, scale=k_width**-0.5, use_norm=True).transpose(1, 2)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def polysketch_attention(name, settings, theirs):
    """The authors' module, in JAX; rope leaves its pairs as halves there, so a channel's numbers stand evens first. Their module
    hands the mixed random sketch two arguments more than it takes: they are dropped, and its norms of them are any."""
    import jax
    from polysketchformer import model, polysketch_attention as sketches

    jax.config.update("jax_enable_x64", True)
    h, d, block, r = 2, WIDTH // 2, 14, settings.get("r")
    case = Case(name, "polysketch_attention", {"num_heads": h, "head_dim": d, "rope": {"theta": 10000.0, "layout": "interleaved"},
                                               "block": block, **settings},
                f"github.com/google-research/google-research polysketchformer/model.py MultiHeadAttention {theirs}, "
                f"jax {version('jax')}, flax {version('flax')}")
    halves = torch.cat((torch.arange(0, d, 2), torch.arange(1, d, 2)))
    numbers = lambda values: jax.numpy.array(values.numpy())
    norm = lambda n, width, order=slice(None): {"scale": numbers(case.gain(n, width)[order]),
                                                "bias": numbers(case.bias(n + "_bias", width)[order])}
    dense = lambda values: {"kernel": numbers(values.T)}
    values = {"Dense_0": dense(torch.cat([case.matrix(n, WIDTH) for n in "qkv"])), "Dense_1": dense(case.matrix("o", WIDTH))}
    drawn = []
    if settings["sketch"] == "learned":
        values["pre_attn_layer"] = {}
        for branch in (1, 2):
            for level, width, order in ((1, d, halves), (2, r, slice(None))):
                n = lambda part: f"branch{branch}_{part}_{level}"
                values["pre_attn_layer"][f"ff{branch}_{level - 1}"] = {
                    "LayerNorm_0": norm(n("norm"), width, order),
                    "Dense_0": dense(case.matrix(n("up"), 8 * r, width)[:, order]),
                    "Dense_1": dense(case.matrix(n("down"), r, 8 * r)),
                }
    else:
        values["pre_attn_layer"] = norm("qk_norm", d, halves)
    if settings["sketch"] == "random":
        drawn = [numbers(case.keep(n, case.draw(r, d))[:, halves].T) for n in ("g1", "g2")]
    if settings.get("mixed"):
        any_norm = lambda n: norm(n, d, halves) if settings["sketch"] == "learned" else values["pre_attn_layer"]
        values |= {"LayerNorm_0": any_norm("q_norm"), "LayerNorm_1": any_norm("k_norm")}
    mixer = model.MultiHeadAttention(
        num_heads=h, emb_dim=WIDTH, context_length=TOKENS, causal=True, attention=theirs, power=4,
        random_key=jax.random.PRNGKey(0), sketch_size=r, grain_size=block, dropout_rate=0.0)
    mixed = sketches.make_mixed_polysketch_attn_fn
    three = lambda **given: lambda q, k, v, *unused: mixed(**given)(q, k, v)
    with (mock.patch.object(jax.random, "normal", side_effect=drawn),
          mock.patch.object(sketches, "make_mixed_polysketch_attn_fn", three)):
        y = mixer.apply({"params": values}, numbers(case.x[None]), training=False)
    case.write(torch.from_numpy(numpy.array(y[0])))


def power_retention(name, chunk):
    """The package's own reference, whole by the quadratic formula (chunk None) or in chunks through the state."""
    from retention.reference import power_retention as core

    h, kv, width = 4, 2, 16
    case = Case(name, "power_retention",
                {"num_heads": h, "num_kv_heads": kv, "head_dim": width, "switch_over_seq_len": chunk or 128},
                f"retention {version('retention')} retention.reference.power_retention")
    q, k, v = (heads(case.project(n, rows * width) + case.bias(n + "_bias", rows * width), width)
               for n, rows in (("q", h), ("k", kv), ("v", kv)))
    log_g = F.logsigmoid(case.project("decay", kv) + case.bias("decay_bias", kv))[None]
    with widened(*(m for n, m in list(sys.modules.items()) if n.startswith("retention") and hasattr(m, "torch"))):
        o = core(q, k, v, log_g, deg=2, chunk_size=chunk)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * width).T + case.bias("o_bias", WIDTH))


def positive_random_features(name):
    """Without the package's own 1e-4 beside every feature, which is a setting of its kernel."""
    from performer_pytorch import performer_pytorch as performer

    h, features = 2, 33
    case = Case(name, "linear_attention",
                {"num_heads": h, "head_dim": K, "value_head_dim": V, "feature_map": "positive_random_features",
                 "M": features},
                "performer_pytorch.softmax_kernel and causal_linear_attention_noncuda")
    q, k, v = (heads(case.project(n, h * w), w).transpose(1, 2) for n, w in (("q", K), ("k", K), ("v", V)))
    z = case.keep("z", case.draw(features, K))
    case.keep("a", torch.ones(features))
    with widened(performer):
        q = performer.softmax_kernel(q, projection_matrix=z, is_query=True, eps=0)
        k = performer.softmax_kernel(k, projection_matrix=z, is_query=False, eps=0)
        o = performer.causal_linear_attention_noncuda(q, k, v, eps=0).transpose(1, 2)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def cosformer(name):
    """The authors' causal module; its M is the length of the sequence."""
    import cosformer

    h = 2
    case = Case(name, "cosformer", {"num_heads": h, "head_dim": WIDTH // h, "M": TOKENS},
                "github.com/OpenNLPLab/cosFormer cosformer.CosformerAttention")
    with widened(cosformer):
        mixer = cosformer.CosformerAttention(WIDTH, h, causal=True)
        values = {}
        for n, there in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("o", "out_proj")):
            values[there + ".weight"], values[there + ".bias"] = case.matrix(n, WIDTH), case.bias(n + "_bias", WIDTH)
        mixer.load_state_dict(values)
        case.write(mixer(case.x[:, None])[:, 0])


def based(name):
    from fla.ops.based import naive

    h, k_width = 2, 9
    case = Case(name, "based", {"num_heads": h, "head_dim": k_width, "value_head_dim": V, "eps": 1e-6},
                "fla.ops.based.naive.naive_parallel_based")
    q, k, v = (heads(case.project(n, h * w), w).transpose(1, 2) for n, w in (("q", k_width), ("k", k_width), ("v", V)))
    with widened(naive):
        o = naive.naive_parallel_based(q, k, v).transpose(1, 2)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def rebased(name, qk_norm):
    """The norm is torch's: one over all heads for each of q and k (the authors), or one of every head (fla)."""
    from fla.ops.rebased import naive

    h, k_width = 2, 9
    case = Case(name, "rebased",
                {"num_heads": h, "head_dim": k_width, "value_head_dim": V, "qk_norm": qk_norm, "eps": 1e-6},
                "fla.ops.rebased.naive.naive_parallel_rebased; torch.nn.functional.layer_norm")
    q, k, v = (case.project(n, h * w) for n, w in (("q", k_width), ("k", k_width), ("v", V)))
    norm = lambda x, n: F.layer_norm(x, x.shape[-1:], case.gain(n, x.shape[-1]), case.bias(n + "_bias", x.shape[-1]))
    if qk_norm == "layer_wide":
        q, k = norm(q, "q_norm"), norm(k, "k_norm")
    q, k, v = heads(q, k_width), heads(k, k_width), heads(v, V)
    if qk_norm == "per_head_shared":
        q, k = norm(torch.cat((q, k)), "qk_norm").chunk(2)
    with widened(naive):
        o = naive.naive_parallel_rebased(*(t.transpose(1, 2) for t in (q, k, v))).transpose(1, 2)
    case.write(flat(o) @ case.matrix("o", WIDTH, h * V).T)


def based_authors(name):
    from einops import rearrange

    h, k_width = 2, 9
    case = Case(name, "based", {"num_heads": h, "head_dim": k_width, "value_head_dim": V},
                "github.com/HazyResearch/based based/models/mixers/linear_attention.py LinearAttention, quadratic")
    code = definitions("based/based/models/mixers/linear_attention.py", "FeatureMap", "TaylorExp", "LinearAttention",
                       rearrange=rearrange)
    values = {f"proj_{n}.weight": case.matrix(n, h * w) for n, w in (("q", k_width), ("k", k_width), ("v", V))}
    values["out_proj.weight"] = case.matrix("o", WIDTH, h * V)
    with widened(), torch.no_grad():
        mixer = code.LinearAttention(WIDTH, code.TaylorExp(k_width), feature_dim=k_width, head_dim=V, num_heads=h)
        mixer.load_state_dict(values)
        case.write(mixer(case.x[None])[0])


def rebased_authors(name):
    """The authors' layer; fla's naive form for the kernel that wants a GPU."""
    from einops import rearrange
    from fla.ops.rebased import naive

    h, k_width = 2, 9
    case = Case(name, "rebased", {"num_heads": h, "head_dim": k_width, "eps": 1e-6},
                "github.com/corl-team/rebased src/mixers/rebased.py ReBased")
    core = lambda q, k, v, *unused: naive.naive_parallel_rebased(q, k, v)
    code = definitions("rebased/src/mixers/rebased.py", "ReBased", rearrange=rearrange, LayerNorm=torch.nn.LayerNorm,
                       parallel_rebased=core)
    values = {f"proj_{n}.weight": case.matrix(n, h * w) for n, w in (("q", k_width), ("k", k_width), ("v", WIDTH // h))}
    values["proj_o.weight"] = case.matrix("o", WIDTH)
    for n in "qk":
        values |= {f"ln_{n}.weight": case.gain(n + "_norm", h * k_width), f"ln_{n}.bias": case.bias(n + "_norm_bias", h * k_width)}
    with widened(naive), torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
        mixer = code.ReBased(WIDTH, feature_dim=k_width, num_heads=h, num_key_value_heads=h)
        mixer.load_state_dict(values)
        case.write(mixer(case.x[None])[0])


# -- the probes ------------------------------------------------------------------------------------------------------


def write_probe(name, source, cases):
    """probes/NAME.json: nested lists of float64 numbers."""
    versions = {"torch": version("torch")}
    lists = lambda value: value.tolist() if hasattr(value, "tolist") else value
    text = json.dumps({"source": source, "versions": versions, "cases": [{k: lists(v) for k, v in case.items()} for case in cases]})
    (HERE / "probes" / f"{name}.json").write_text(text + "\n")
    print(f"probes/{name:25} {len(text):7} bytes", file=sys.stderr)


def vertex_softmax():
    """Boxes of logits and intervals of values: the range of every softmax average."""
    code = definitions("VertexSoftmax_for_vitveri/attention_cert_method_sweep.py", "softmax_box_expectation_min",
                       "softmax_box_expectation_bounds")
    generator = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    cases = []
    for keys, size, width in ((1, 1, 1), (11, 1, 0.3), (11, 3, 5), (37, 2, 1)):
        low, value = size * normal(2, keys), normal(keys, 3)
        high, value_high = low + width * normal(2, keys).abs(), value + 0.2 * normal(keys, 3).abs()
        least, greatest = code.softmax_box_expectation_bounds(low[None], high[None], value[None], value_high[None])
        cases.append({"low": low, "high": high, "value_low": value.T, "value_high": value_high.T,
                      "least": least[0], "greatest": greatest[0]})
    write_probe("vertex_softmax", "github.com/wawawa00/VertexSoftmax_for_vitveri (a copy of the authors' repository) "
                "attention_cert_method_sweep.py softmax_box_expectation_bounds", cases)


def attention_sinks():
    """Heads whose strongest key is the first, where plait's reading of a causal map is the authors' of a whole one."""
    import time

    common = definitions(
        "attention_sink/vit_causal/common.py", "DEF1_FRAC", "NOP_RATIO_MAX", "BC_RATIO_MIN", "BC_SR_MAX", "event_class",
        "attention_internals", "layerscale_gamma", "project_values_all_heads", "masked_mean_vector", "shared_energy_fraction",
        "svd_energy_stats")
    wide = types.SimpleNamespace(**vars(numpy) | {"float32": numpy.float64})
    code = definitions("attention_sink/vit_causal/diagnose_heads.py", "PER_IMAGE_KEYS", "collect_diagnostics", np=wide, time=time,
                       check_block_recomputation=lambda block, x: 0.0, **vars(common))
    n, h, d = 11, 4, 3  # a NOP, a broadcast, a sink that is neither, no sink
    generator = torch.Generator().manual_seed(2)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    q, k, v = (normal(n, h, d) for _ in range(3))
    for head, (pull, loud) in enumerate(((6, 0.05), (6, 4), (6, 0.35), (1.6, 1))):
        q[:, head, 0], k[0, head] = 1.5, torch.tensor([pull, 0, 0])
        v[0, head] *= loud

    class Block(types.SimpleNamespace):
        __call__ = lambda self, x: x

    block = Block(
        norm1=lambda x: x, ls1=types.SimpleNamespace(gamma=normal(h * d)),
        attn=types.SimpleNamespace(num_heads=h, scale=1.0, qkv=lambda x: torch.stack((q, k, v), 1)[None],
                                   proj=types.SimpleNamespace(weight=normal(h * d, h * d))))
    signal = torch.zeros(1, n, h * d).double()

    with widened(), contextlib.redirect_stdout(sys.stderr):
        model = types.SimpleNamespace(blocks=[block], prepare_tokens_with_masks=lambda images: signal)
        found, sinks, *_ = code.collect_diagnostics(model, [(signal, torch.zeros(1))], 1, "cpu")
        weights, values = common.attention_internals(block, signal)
        outputs = common.project_values_all_heads(block, values)
        kinds = common.event_class(found["routed_frac"], found["ratio_out"], found["stable_rank"])[0, 0]
        shared = common.shared_energy_fraction((weights @ outputs)[0], torch.ones(h, n).bool())
    assert sorted(kinds) == ["broadcast", "none", "nop", "other"] and not sinks.any(), kinds
    write_probe("attention_sinks", "github.com/KempnerInstitute/attention_sink vit_causal/diagnose_heads.py collect_diagnostics",
                [{"weights": weights[0, i].flatten(), "values": values[0, i].flatten(), "outputs": outputs[0, i].flatten(),
                  "kind": kinds[i], "sink": sinks[0, 0, i], "shared_energy": shared[i],
                  **{key: found[key][0, 0, i] for key in code.PER_IMAGE_KEYS}} for i in range(h)])


def sink_counts():
    """A layer of 60 heads, a case per rule of the authors' table: how many are sinks, NOPs, broadcasts."""
    code = definitions("attention_sink/lejepa_sinks/sink_table.py", "sink_events", "count")
    draw = numpy.random.default_rng(3)

    class Heads(dict):
        files = ("min_a", "routed_frac", "ratio_head", "sink_idx")

    heads = Heads(routed_frac=draw.choice((0.8, 0.9, 1.0), 60), min_a=draw.choice((0, 0.5, 0.6, 0.75, 0.8, 0.9, 1.0), 60),
                  ratio_head=draw.choice((0.1, 0.2, 0.3, 0.5, 2.0), 60), sink_idx=numpy.zeros(60, int))
    images = Heads({name: values[None, None] for name, values in heads.items()})
    rows = []
    for rule, eps in (("relaxed", None), ("def1", 0.5), ("def1", 0.3), ("def1", 0.2), ("def1", 0.1)):
        found = code.count(images, code.sink_events(images, rule, eps), include_block0=True)
        rows.append({"eps": eps, "sinks": found["total"], "nop": found["nop"], "broadcast": found["bc"],
                     **{name: heads[name] for name in ("routed_frac", "min_a", "ratio_head")}})
    write_probe("sink_counts", "github.com/KempnerInstitute/attention_sink lejepa_sinks/sink_table.py count", rows)


def main():
    sum_norm = lambda x: x / x.sum(-1, keepdim=True)
    elu_plus_one = lambda x: F.elu(x) + 1
    delta_net("delta_net", {})
    delta_net("delta_net_elu_sum_gated", {"conv": 0, "qk_activation": "elu", "qk_norm": "sum", "gate": "silu"},
              elu_plus_one, sum_norm)
    gated_delta_net("gated_delta_net", {})
    gated_delta_net("gated_delta_net_negative", {"negative_eigenvalues": True, "gate": "none"}, None)
    gated_delta_net_qwen3_next("gated_delta_net_qwen3_next")
    gated_linear_attention("gated_linear_attention", {})
    gated_linear_attention("gated_linear_attention_conv", {"conv": 4})
    linear_attention("linear_attention_elu", {"head_dim": K, "feature_map": "elu"}, elu_plus_one)
    linear_attention("linear_attention_relu_norm",
                     {"head_dim": K, "feature_map": "relu", "normalise": False, "output_norm": True}, F.relu)
    linear_attention("linear_attention_taylor2", {"head_dim": 9, "feature_map": "taylor2"}, taylor_features)
    mamba2("mamba2", {})
    mamba2("mamba2_limits", {"dt_min": 0.05, "dt_max": 0.4})
    mesa_net("mesa_net", {}, "naive_mesa_net_CG")
    mesa_net("mesa_net_diagonal_gated", {"cg_start": "diagonal", "cg_steps": 9, "gate": "silu"},
             "naive_mesa_net_decoding_one_step")
    mesa_net("mesa_net_cholesky", {"solver": "cholesky", "lambda_min": 0.125}, "naive_mesa_net_exact")
    ttt_linear("ttt_linear", {})
    ttt_linear("ttt_linear_share_qk_gated", {"conv": 4, "gate": "gelu_tanh", "base_lr": 0.5})
    softmax_attention_qwen3_next("softmax_attention_qwen3_next")
    softmax_attention_llama3("softmax_attention_llama3")
    softmax_attention_gpt_oss("softmax_attention_gpt_oss")
    softmax_attention_gemma2("softmax_attention_gemma2")
    softmax_attention_diffllama("softmax_attention_diffllama")
    softmax_attention_forgetting("softmax_attention_forgetting", None)
    softmax_attention_forgetting("softmax_attention_forgetting_window", 17)
    softmax_attention_fox_pro("softmax_attention_fox_pro")
    softmax_attention_fox_pro_authors("softmax_attention_fox_pro_authors")
    softmax_attention_parallax("softmax_attention_parallax", None)
    softmax_attention_parallax_norm("softmax_attention_parallax_norm")
    softmax_attention_parallax("softmax_attention_parallax_window", 23)
    softmax_attention_stick_breaking("softmax_attention_stick_breaking", False)
    softmax_attention_stick_breaking("softmax_attention_stick_breaking_current", True)
    softmax_attention_gated("softmax_attention_gated_elementwise", "elementwise", False)
    softmax_attention_gated("softmax_attention_gated_headwise", "headwise", True)
    softmax_attention_diff_v1("softmax_attention_diff_v1")
    softmax_attention_diff_v2("softmax_attention_diff_v2")
    sinkhorn_attention("sinkhorn_attention", 3)
    sinkhorn_attention("sinkhorn_attention_columns", 8)
    softmax_free_attention("softmax_free_attention", 2, {"ratio": 3, "conv": 3})
    softmax_free_attention("softmax_free_attention_normalised", 1, {"ratio": 2, "conv": 5, "normalised": True})
    sigmoid_attention("softmax_attention_sigmoid", "unnormalized_sigmoid_attention", {}, 0.5, -1.5, alibi=True)
    sigmoid_attention("softmax_attention_sigmoid_sqrt_n", "sqrt_seq_len_normalized_sigmoid_attention",
                      {"row_scale": "inv_sqrt_n"}, norm=True)
    sigmoid_attention("softmax_attention_sigmoid_n", "seq_len_normalized_sigmoid_attention", {"row_scale": "inv_n"}, bias=1.0)
    normed = {"score": ["scaled_dot", "row_standardise"]}
    periodic_softmax("softmax_attention_sin2_shifted", periodic_module("Sin2maxShifted"), "sin2_shifted", {})
    periodic_softmax("softmax_attention_sin2_normed", periodic_module("Sin2max"), "sin2", normed)
    periodic_softmax("softmax_attention_cos_normed", periodic_module("Cosmax"), "cos", normed)
    periodic_softmax("softmax_attention_sin", periodic_module("Sinmax"), "sin", {"bias": True, "scale": 0.06})  # around pi / 2
    periodic_softmax("softmax_attention_siren", periodic_module("Sirenmax"), "siren", {"scale": 0.1})  # below pi / 2
    periodic_softmax("softmax_attention_sin_softmax", periodic_module("SinSoftmax"), "", {"score": ["scaled_dot", "sin_softmax"]})
    periodic_softmax("softmax_attention_sin10_demo", periodic_demo("norm_sinmax"), "one_plus_sin10",
                     {**normed, "scale": 1.0, "row_standardise": {"scale_after": True}})
    periodic_softmax("softmax_attention_sin_softmax_demo", periodic_demo("norm_sin_softmax"), "",
                     {"score": ["scaled_dot", "row_standardise", "sin_softmax"], "scale": 1.0,
                      "sin_softmax": {"scale_after": True}})
    scaled_signed_averaging("softmax_attention_ssa", 0.7, 0.2)
    self_adjust_softmax("softmax_attention_self_adjust", "normalised")
    self_adjust_softmax("softmax_attention_self_adjust_plain", "plain")
    normalization_equivariance("normalization_equivariance_open", "NormEquivariant", "direct", False)
    normalization_equivariance("normalization_equivariance_close", "NormEquivariant", "direct", True)
    normalization_equivariance("normalization_equivariance_close_residual", "NormEquivariant", "residual", True)
    normalization_equivariance("normalization_equivariance_scale_open", "ScaleEquivariant", "scale_only", False)
    normalization_equivariance("normalization_equivariance_scale_close", "ScaleEquivariant", "scale_only", True)
    global_pathway("global_pathway", "flat", "learned")
    global_pathway("global_pathway_hierarchical", "hierarchical", "hier")
    mlr_attention("softmax_attention_mlr", "none")
    mlr_attention("softmax_attention_mlr_levels", "levels")
    mlr_attention("softmax_attention_mlr_shared_levels", "shared_levels")
    bilinear_mlr("softmax_attention_bilinear_mlr", "standard", False)
    bilinear_mlr("softmax_attention_bilinear_mlr_mup", "mup", True)
    bilinear_btt("softmax_attention_bilinear_btt", 3, "standard")
    bilinear_btt("softmax_attention_bilinear_btt_mup", 1, "mup")
    latent_attention_deepseek_v3("latent_attention_deepseek_v3")
    latent_attention_kimi_linear("latent_attention_kimi_linear")
    nats_l("nats_l", {})
    nats_l("nats_l_no_decay", {"decay_for_non_gdn_blocks": False, "negative_eigenvalues": True})
    path_attention("path_attention", 4, {})
    path_attention("path_attention_forgetting", 2, {"w_rank": 0, "forget_gate": True, "qk_norm": {"eps": 1e-5}})
    path_attention("path_attention_low_rank", 1, {"w_rank": 5, "conv": 0})
    wall_attention("wall_attention", 4, {})
    wall_attention("wall_attention_grouped", 2, {"qk_norm": {"eps": 1e-5, "gains": "per_head"}})
    wall_attention("wall_attention_window", 2, {"window": 33, "normaliser": "sink_softmax"})
    wall_attention("wall_attention_forgetting", 4, {"forget_gate": True})
    polynomial_attention("polynomial_attention_rebased")
    polysketch_attention("polysketch_attention_exact", {"sketch": "none"}, "polynomial")
    polysketch_attention("polysketch_attention_random", {"sketch": "random", "r": 9}, "random_sketch")
    polysketch_attention("polysketch_attention_random_mixed", {"sketch": "random", "mixed": True, "r": 9}, "random_sketch_mixed")
    polysketch_attention("polysketch_attention_learned", {"sketch": "learned", "r": 9}, "learned_sketch")
    polysketch_attention("polysketch_attention_learned_mixed", {"sketch": "learned", "mixed": True, "r": 9}, "learned_sketch_mixed")
    power_retention("power_retention", None)
    power_retention("power_retention_chunks", 14)
    positive_random_features("positive_random_features")
    cosformer("cosformer")
    based("based")
    based_authors("based_authors")
    rebased_authors("rebased_authors")
    rebased("rebased_layer_wide", "layer_wide")
    rebased("rebased_per_head", "per_head_shared")
    vertex_softmax()
    attention_sinks()
    sink_counts()


if __name__ == "__main__":
    main()
