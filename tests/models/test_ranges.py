"""The owner's bounds hold for sampled inputs of the worst length, and models beyond them are refused by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from puma.errors import RangeError
from puma.models import bounds, ranges
from puma.models.bounds import ADDED, Source
from puma.models.checkpoint import load
from puma.models.config import Gpt2, Llama, Rope
from puma.models.rope import frequencies
from puma.nn.functional import heads, rms_norm
from puma.nn.modules import rotary_angles
from tests.models import tiny, zoo
from tests.models.plain import check_usual


def sphere(count: int, width: int) -> torch.Tensor:
    """Outputs of a norm: rows of length sqrt(width)."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(1))
    return x / x.norm(dim=1, keepdim=True) * math.sqrt(width)


def spread(q: torch.Tensor, k: torch.Tensor) -> float:
    scores = torch.einsum("ihd,jhd->hij", q, k)
    return float((scores.amax(2) - scores.amin(2)).max())


def test_scores_of_a_model_with_biases_stay_within_the_bound() -> None:
    config = Gpt2(vocab_size=10, width=32, layers=1, heads=4)
    names = ["x.self_attn.q_proj", "x.self_attn.k_proj"]
    params = {f"{n}.weight": torch.randn(32, 32) for n in names} | {f"{n}.bias": 9 * torch.randn(32) for n in names}
    n = sphere(2000, 32)
    q, k = ((n @ params[f"{m}.weight"].T + params[f"{m}.bias"]).view(-1, 4, 8) for m in names)
    ((name, bound, _),) = (bound for bound in ranges.bounds(config, params) if bound.what != ADDED)
    assert name == names[0]
    assert spread(q, k) < bound < 30 * spread(q, k)


def test_scores_of_a_rotary_model_stay_within_the_bound() -> None:
    config = Llama(vocab_size=10, hidden_size=32, intermediate_size=8, layers=1, heads=4, kv_heads=2)
    params = {"x.self_attn.q_proj.weight": torch.randn(32, 32), "x.self_attn.k_proj.weight": torch.randn(16, 32)}
    n = sphere(1000, 32)
    angles = rotary_angles(torch.arange(1000), frequencies(Rope(), 8, 2048), torch.device("cpu"))
    q, k = (n @ w.T for w in params.values())
    q, k, _ = heads(q, k, torch.zeros(1000, 8), 8, [angles, angles])
    k = k.repeat_interleave(2, dim=1)
    ((_, bound, what),) = (bound for bound in ranges.bounds(config, params) if bound.what != ADDED)
    assert "attention scores" in what
    assert spread(q, k) < bound < 30 * spread(q, k)


@pytest.mark.parametrize("make", [tiny.llama, tiny.gpt2, tiny.bert, tiny.classifier])
def test_an_ordinary_model_passes(make, tmp_path: Path) -> None:
    checkpoint = load(make(tmp_path / "model"))
    names = {name.rpartition(".")[2] for name, *_ in ranges.bounds(checkpoint.config, checkpoint.fold())}
    assert len(names) >= 3


@pytest.mark.parametrize(
    ("part", "factor", "what"),
    [("gate_proj", 100.0, "an activation"), ("v_proj", 110.0, "a value"), ("q_proj", 120.0, "attention scores")],
)
def test_what_could_overflow_is_refused_by_name(part: str, factor: float, what: str, tmp_path: Path) -> None:
    checkpoint = load(tiny.llama(tmp_path / "model"))
    params = dict(checkpoint.fold())
    name = next(n for n in params if part in n)
    largest = float(params[name].abs().max())
    params[name] = params[name] * (factor / largest)
    if part == "q_proj":
        params[name.replace("q_proj", "k_proj")] *= 20.0
    with pytest.raises(RangeError, match=f"{part} can give {what}"):
        check_usual(checkpoint.config, params)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "gemma2", "neox", "opt"])
def test_scores_of_every_kind_of_decoder_stay_within_the_bound(name: str, tmp_path: Path) -> None:
    """Biases of keys turn with positions, and are shared by all keys otherwise; norms of heads bound what they give."""
    checkpoint = load(zoo.write(tmp_path, name))
    config: Any = checkpoint.config
    params = checkpoint.fold()
    layer = "model.layers.0.self_attn."
    names = [f"{layer}{part}_proj" for part in "qk"]
    n = sphere(400, config.hidden_size)
    q, k = (n @ params[f"{m}.weight"].T + params.get(f"{m}.bias", torch.zeros(1)) for m in names)
    if config.head_norms:
        q, k = (
            (rms_norm(x.reshape(400, -1, config.head_dim), 1e-9) * params[f"{layer}{part}_norm.weight"]).reshape(
                400, -1
            )
            for x, part in ((q, "q"), (k, "k"))
        )
    turns = (
        rotary_angles(torch.arange(400), frequencies(config.rope, config.head_dim, 32), n.device)
        if config.rope
        else None
    )
    q, k, _ = heads(q, k, k, config.head_dim, [turns, turns] if turns is not None else [])
    k = k.repeat_interleave(config.heads // config.kv_heads, dim=1)
    bound = next(b for where, b, _ in ranges.bounds(config, params) if where == names[0])
    assert spread(q, k) < bound < 40 * spread(q, k)


@pytest.mark.parametrize("name", ["Albert-MaskedLM", "Electra-SequenceClassification", "t5-gated", "vit"])
def test_every_limited_matrix_has_a_bound(name: str, tmp_path: Path) -> None:
    checkpoint = load(zoo.write(tmp_path, name))
    params = dict(checkpoint.fold())
    bounded = {where for where, _, what in ranges.bounds(checkpoint.config, params) if what != ADDED}
    ends = ("query", "value", "intermediate.dense", "pooler.dense", "transform.dense", "q_proj", "v_proj", "gate_proj")
    wanted = {n.removesuffix(".weight") for n in params if n.removesuffix(".weight").endswith(ends)}
    assert wanted <= bounded
    where = sorted(bounded)[0]
    params[f"{where}.weight"] = params[f"{where}.weight"] * 0 + 127.0
    with pytest.raises(RangeError):
        check_usual(checkpoint.config, params)


@pytest.mark.parametrize("make", [tiny.llama, tiny.bert])
def test_an_ordinary_model_can_hide_scores(make, tmp_path: Path) -> None:
    checkpoint = load(make(tmp_path / "model"))
    params = dict(checkpoint.fold())
    assert ranges.hides(checkpoint.config, params)
    wide = {name: tensor * 100 if "q_proj" in name or "query" in name else tensor for name, tensor in params.items()}
    wide = {name: tensor * 100 if "k_proj" in name or "key" in name else tensor for name, tensor in wide.items()}
    assert not ranges.hides(checkpoint.config, wide)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("affine", [False, True])
def test_what_attention_adds_stays_within_its_bound(affine: bool, groups: int) -> None:
    """Any mean of values of what norms give, each head another one; and the bound is not far."""
    width, heads, size = 32, 4, 8
    draw = torch.Generator().manual_seed(2)
    scale, shift = torch.rand(width, generator=draw) + 0.5, torch.randn(width, generator=draw)
    source = Source(width, scale, shift) if affine else Source(width)
    params = {
        "v.weight": torch.randn(heads // groups * size, width, generator=draw),
        "v.bias": torch.randn(heads // groups * size, generator=draw),
        "o.weight": torch.randn(width, heads * size, generator=draw), "o.bias": torch.randn(width, generator=draw),
    }  # fmt: skip
    bound = bounds.attended(params, "v", "o", size, source)
    for row in range(width):
        towards = params["o.weight"][row].reshape(heads, size)
        values = params["v.weight"].reshape(-1, size, width).repeat_interleave(groups, 0)
        seen = values * scale if affine else values
        best = torch.einsum("hs,hsw->hw", towards, seen)
        n = best / best.norm(dim=1, keepdim=True) * math.sqrt(width)  # the worst that each head can read
        read = n * scale + shift if affine else n
        given = torch.einsum("hsw,hw->hs", values, read) + params["v.bias"].reshape(-1, size).repeat_interleave(
            groups, 0
        )
        for sign in (1, -1):
            most = float((towards * (given - 2 * (sign < 0) * torch.einsum("hsw,hw->hs", seen, n))).sum())
            assert abs(most + float(params["o.bias"][row])) <= float(bound[row]) * 1.0001
        worst = max(
            abs(float((towards * g).sum() + params["o.bias"][row]))
            for g in (given, given - 2 * torch.einsum("hsw,hw->hs", seen, n))
        )
        assert worst > 0.999 * float(bound[row])


@pytest.mark.parametrize("names", [("up",), ("gate", "up")])
@pytest.mark.parametrize("inner", [24, 200])
def test_what_an_mlp_adds_stays_within_its_bound(inner: int, names: tuple[str, ...]) -> None:
    draw, width = torch.Generator().manual_seed(3), 48
    params = {f"{name}.weight": torch.randn(inner, width, generator=draw) for name in names}
    params |= {f"{name}.bias": torch.randn(inner, generator=draw) for name in names}
    params |= {
        "down.weight": torch.randn(width, inner, generator=draw),
        "down.bias": torch.randn(width, generator=draw),
    }
    bound = bounds.activated(params, names, "down", Source(width))
    n = sphere(4000, width)
    first, *rest = (n @ params[f"{name}.weight"].T + params[f"{name}.bias"] for name in names)
    for function in (torch.nn.functional.silu, torch.nn.functional.gelu, torch.relu, lambda x: x):
        inner_rows = function(first) * (rest[0] if rest else 1.0)
        found = (inner_rows @ params["down.weight"].T + params["down.bias"]).abs().amax(0)
        assert bool((found < bound).all())
    assert float((bound / found).min()) < 60


@pytest.mark.parametrize(
    "name",
    [
        "qwen2",
        "gemma2",
        "neox",
        "opt",
        "t5-gated",
        "Albert-MaskedLM",
        "Electra-SequenceClassification",
        "gpt-oss",
        "qwen3.5-moe",
        "qwen3-next",
        "modernbert",
        "clip-vision",
        "deberta-convolution",
    ],
)
def test_what_is_written_is_bounded(name: str, tmp_path: Path) -> None:
    """Of every matrix that writes the stream, and of tables."""
    checkpoint = load(zoo.write(tmp_path, name))
    params = dict(checkpoint.fold())
    found = {bound.name for bound in ranges.bounds(checkpoint.config, params) if bound.what == ADDED}
    ends = ("o_proj.weight", "down_proj.weight", "output.dense.weight", "embedding_norm.weight", "first_norm.weight")
    wanted = {n.removesuffix(".weight") for n in params if n.endswith(ends)}
    wanted |= {"bert.conv"} if "bert.conv.conv.weight" in params else set()
    assert wanted and wanted <= found and len(found) > len(wanted)


def written(name: str, folder: Path, changed: dict[str, float], **settings: object) -> dict[str, float]:
    """What is added to the stream at most, of a model with other numbers in the parameters that end so."""
    checkpoint = load(zoo.write(folder, name, **settings))
    params = dict(checkpoint.fold())
    for end, value in changed.items():
        names = [each for each in params if each.endswith(end)]
        assert names, end
        params |= {each: params[each] * 0 + value for each in names}
    return {bound.name: bound.size for bound in ranges.bounds(checkpoint.config, params) if bound.what == ADDED}


def test_what_is_written_behind_a_gate_has_its_bias(tmp_path: Path) -> None:
    found = written("qwen3.5", tmp_path, {"self_attn.o_proj.bias": 1000.0}, attention_bias=True)
    assert max(found.values()) > 1000


def test_what_experts_write_has_their_biases_and_all_that_clamped_gates_give(tmp_path: Path) -> None:
    """(up + 1) gate is not 0 where up is."""
    nothing = {"mlp.up_proj.weight": 0.0, "mlp.up_proj.bias": 0.0}
    found = written("gpt-oss", tmp_path / "a", nothing | {"mlp.gate_proj.bias": 9.0, "mlp.biases.weight": 0.0})
    assert all(size > 1 for name, size in found.items() if name.endswith("down_proj"))
    found = written("gpt-oss", tmp_path / "b", {"mlp.biases.weight": 1e6})
    assert all(size > 1e6 for name, size in found.items() if name.endswith("down_proj"))


def test_heads_that_may_look_at_nothing_count_for_any_part_of_themselves() -> None:
    """A bias behind them that takes away what their values share is there alone where they look at nothing."""
    draw = torch.Generator().manual_seed(4)
    params = {"v.weight": torch.randn(16, 8, generator=draw), "v.bias": 50 * torch.randn(16, generator=draw)}
    params["o.weight"] = torch.randn(8, 16, generator=draw)
    params["o.bias"] = -params["o.weight"] @ params["v.bias"]
    n = sphere(50, 8)
    values = (n @ params["v.weight"].T + params["v.bias"]).reshape(-1, 4, 4)
    parts = torch.rand(500, 1, 4, 1, generator=draw).round()  # of each head all or nothing
    given = ((values * parts).reshape(500, 50, 16) @ params["o.weight"].T + params["o.bias"]).abs().amax((0, 1))
    assert not bool((given <= bounds.attended(params, "v", "o", 4, Source(8))).all())
    assert bool((given <= bounds.attended(params, "v", "o", 4, Source(8), less=True)).all())


@pytest.mark.parametrize(("name", "part"), [("t5", "self_attn.k_proj"), ("deberta", "attention.self.key")])
def test_what_is_multiplied_must_fit_even_if_scores_do_not_show_it(name: str, part: str, tmp_path: Path) -> None:
    """A key that all rows have in common moves no score."""
    checkpoint = load(zoo.write(tmp_path, name))
    params = dict(checkpoint.fold())
    for each in [each for each in params if f"{part}." in each]:
        params[each] = params[each] * 1e6
    with pytest.raises(RangeError, match="a factor of"):
        list(ranges.bounds(checkpoint.config, params))
