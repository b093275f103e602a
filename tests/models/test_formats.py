"""Number formats: what a config may say of them, whom they reach, and that the usual ones change nothing."""

from __future__ import annotations

import msgspec
import pytest
import torch

from puma.errors import UsageError
from puma.models import Config, architecture, with_layers
from puma.models.config import T5, Bert, Gpt2, Llama, Vit
from puma.models.formats import Formats, observe, places
from puma.mpc.fixed import RING
from puma.nn.places import LARGEST, LEAST, REACHES, SEEN, Place
from puma.wire.parameters import tensor_specs

SIZES = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2}
CONFIGS: list[Config] = [
    Llama(**SIZES),
    Llama(**SIZES, post_norms=True, head_norms=True, tied=True, logit_cap=30.0),
    Gpt2(width=16, vocab_size=40, layers=2, heads=2),
    Bert(**SIZES, labels=("no", "yes"), predicts=True),
    Bert(**SIZES, embedding_size=8, projected=True, groups=1),
    T5(**SIZES, head_dim=8, encoder_layers=3),
    Vit(hidden_size=16, intermediate_size=32, layers=2, heads=2, image_size=8, patch_size=4, labels=("no", "yes")),
]


def with_formats(config: Config, formats: Formats) -> Config:
    return msgspec.structs.replace(config, formats=formats)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_every_place_has_a_name_and_a_reach_of_its_own(config: Config) -> None:
    usual = places(architecture(config).model(config))
    assert len(usual) >= 7
    reaches = {name: SEEN + i % (LARGEST[place.kind] - SEEN + 1) for i, (name, place) in enumerate(usual.items())}
    named = with_formats(config, Formats(stream=20, places=reaches))
    model = architecture(named).model(named)
    assert {name: place.reach for name, place in places(model).items()} == reaches
    assert all(place.name == name for name, place in places(model).items())
    of_stream = [p for _, module in model.modules() for p in module.places if p.kind == "stream"]
    assert of_stream and all(place.reach == 20 for place in of_stream)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
def test_the_usual_formats_are_those_of_before(config: Config) -> None:
    assert {spec.bits for spec in tensor_specs(config)} == {RING}
    for place in places(architecture(config).model(config)).values():
        assert (place.reach, place.named) == (REACHES[place.kind], False)


def test_the_stream_and_named_places_decide_on_rings() -> None:
    name = "model.layers.0.mlp.gate_proj"
    config = with_formats(CONFIGS[0], Formats(stream=20, places={name: 9}))
    rings = {spec.name: spec.bits for spec in tensor_specs(config)}
    assert rings["model.layers.1.mlp.down_proj.weight"] == rings["model.layers.0.self_attn.o_proj.weight"] == 54
    assert rings[f"{name}.weight"] == 43 and rings["model.layers.1.mlp.gate_proj.weight"] == RING


def test_formats_travel_with_a_config_and_are_written_alike() -> None:
    one, other = (Formats(places=dict(pairs)) for pairs in ([("a", 7), ("b", 6)], [("b", 6), ("a", 7)]))
    assert msgspec.json.encode(one) == msgspec.json.encode(other) and hash(one) == hash(other)
    config = with_formats(CONFIGS[0], one)
    assert msgspec.json.decode(msgspec.json.encode(config), type=Llama) == config
    assert b'"formats":{}' in msgspec.json.encode(CONFIGS[0])


@pytest.mark.parametrize(
    "formats",
    [
        '{"stream": 31}', '{"stream": 4}', '{"places": {"a": 2}}', '{"proven": [""]}', '{"places": {"a": 31}}',
        '{"places": {"": 9}}',
    ],
)  # fmt: skip
def test_reaches_beyond_what_rings_hold_are_refused_where_a_config_is_read(formats: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(formats, type=Formats)


def test_unknown_places_and_wrong_reaches_are_refused() -> None:
    with pytest.raises(UsageError, match=r"model\.layers\.2\.mlp\.gate_proj, a place that the model has not"):
        tensor_specs(with_formats(CONFIGS[0], Formats(places={"model.layers.2.mlp.gate_proj": 9})))
    with pytest.raises(UsageError, match=r"2\^24 at model\.norm is beyond 2\^23"):
        tensor_specs(with_formats(CONFIGS[0], Formats(places={"model.norm": 24})))
    with pytest.raises(UsageError, match=r"a place that the model has not"):
        tensor_specs(with_formats(CONFIGS[0], Formats(proven=("model.norm",))))


def test_what_is_proven_may_have_less_room_than_what_has_to_be_seen() -> None:
    name = "model.layers.0.mlp.gate_proj"
    tensor_specs(with_formats(CONFIGS[0], Formats(places={name: LEAST["activation"]}, proven=(name,))))
    with pytest.raises(UsageError, match=f"2\\^{LEAST['activation']} at {name} is below 2\\^{SEEN}"):
        tensor_specs(with_formats(CONFIGS[0], Formats(places={name: LEAST["activation"]})))
    found = places(architecture(CONFIGS[0]).model(with_formats(CONFIGS[0], Formats(places={name: 7}, proven=(name,)))))
    assert [place.watched for at, place in found.items() if at == name] == [False]
    assert all(place.watched for at, place in found.items() if at != name)


def test_fewer_layers_keep_their_places() -> None:
    config = with_formats(CONFIGS[0], Formats(places={"model.layers.1.mlp.gate_proj": 9, "model.norm": 8}))
    assert with_layers(config, 1).formats == Formats(places={"model.norm": 8})
    assert with_layers(config, 3).formats == config.formats


def test_an_observer_is_told_of_every_place() -> None:
    """And what it is told is what the place is about."""
    config = CONFIGS[1]
    shapes = architecture(config).parameters(config)
    rng = torch.Generator().manual_seed(1)
    model = architecture(config).model(config, {n: torch.randn(s, generator=rng) * 0.3 for n, s in shapes.items()})
    told: dict[tuple[str, str], torch.Tensor] = {}

    def note(place: Place, x: torch.Tensor) -> None:
        told.setdefault((place.name, place.kind), x)

    observe(model, note)
    model(torch.arange(5))
    known = {(p.name, p.kind) for _, module in model.modules() for p in module.places}
    assert set(told) == known
    first = "model.layers.0"
    assert told[f"{first}.input_layernorm", "norm"].shape == (5, 16)
    assert told[f"{first}.self_attn.q_norm", "norm"].shape == (5, 2, 8)
    assert told[f"{first}.mlp.up_proj", "gated"].shape == told[f"{first}.mlp.gate_proj", "activation"].shape == (5, 32)
    scores = told[f"{first}.self_attn.q_proj", "scores"]
    assert scores.shape == (1, 2, 5) and bool((scores[..., 0] == 0).all()) and bool((scores[..., 1:] > 0).all())
    logits = model(torch.arange(5))
    assert told["lm_head", "logits"].shape == logits.shape[:1]
    observe(model, None)
    told.clear()
    model(torch.arange(5))
    assert not told
