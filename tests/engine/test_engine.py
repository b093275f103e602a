"""What a party refuses before it reads a prompt, what it answers when it goes on, and the cost: on shapes only."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from puma.engine.admission import OWNER, admit
from puma.engine.engine import Engine
from puma.engine.generation import run
from puma.errors import UsageError
from puma.models import with_layers
from puma.models.config import T5, Bert, Config, Gpt2, Llama
from puma.mpc.cost import Entry
from puma.mpc.party import Party
from puma.mpc.share import Share
from puma.mpc.watch import FLAG_RING
from puma.wire.messages import NEXT, Encode, Generate, Input
from puma.wire.parameters import tensor_specs
from puma.wire.prompt import imagined
from tests.trio import given

VOCABULARY = 16
LLAMA = Llama(vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, layers=1, heads=2, context=8)
GPT2 = Gpt2(vocab_size=VOCABULARY, width=8, layers=1, heads=2, context=8)
BERT = Bert(
    vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, layers=1, heads=2, context=8, labels=("a", "b", "c")
)
Job = Generate | Encode


def engine(config: Config) -> Engine:
    """P1's engine of a dry run."""
    party = Party(1)
    specs = tensor_specs(config)
    return Engine(party, config, {t.name: given(party, torch.zeros(t.shape), t.bits, t.frac, t.name) for t in specs})


def served(config: Config, job: Job) -> tuple[list[Share], list[int], dict[str, Entry]]:
    """What is emitted, how many results had been when the prompt was done, and the ledger."""
    dry, emitted, prefilled = engine(config), list[Share](), list[int]()
    admit(dry.config, dry.party.approximation, job, OWNER)
    prompts = imagined(dry.party, job.input.tokens, VOCABULARY)
    run(dry, job, prompts, emitted.append, lambda: prefilled.append(len(emitted)))
    return emitted, prefilled, dry.party.ledger.entries


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (Generate(Input([], []), 1), "no prompt"),
        (Generate(Input([3, -3], []), 1), "empty"),
        (Generate(Input([3, 9], []), 1), "context 8"),
        (Generate(Input([3, 7], []), 3), "exceed"),
        (Generate(Input([1] * 300, []), 1), "more than 256"),
        (Encode(Input([3], []), "weights"), "no output weights"),
        (Encode(Input([2, 1], [], [], [0, 1]), "logits"), "token types"),
        (Encode(Input([2, 1], [], [], [0, 1, 2]), "logits"), "token types"),
    ],
)
def test_what_cannot_be_served_is_refused(job: Job, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        admit(LLAMA if isinstance(job, Generate) else BERT, "spline", job, OWNER)
    assert refused.value.hint


@pytest.mark.parametrize(
    "config",
    [BERT, T5(vocab_size=9, hidden_size=8, head_dim=4, intermediate_size=8, layers=1, encoder_layers=1, heads=2)],
    ids=["bert", "t5"],
)
def test_who_scores_no_prompt_is_not_asked_to(config: Config) -> None:
    """T5 answers a prompt; it does not predict the prompt's own tokens."""
    with pytest.raises(UsageError, match="predicts no next token"):
        admit(config, "spline", Encode(Input([3], []), NEXT), OWNER)


def test_a_step_emits_one_token_of_each_prompt() -> None:
    emitted, prefilled, _ = served(LLAMA, Generate(Input([3, 1, 2], []), 2))
    assert [(tuple(share.shape), share.bits) for share in emitted] == [((3,), 4), ((3,), FLAG_RING)] * 2
    assert prefilled == [2]


@pytest.mark.parametrize(("output", "shape"), [("hidden", (6, 8)), ("pooled", (3, 8)), ("logits", (3, 3))])
def test_what_each_output_holds(output: str, shape: tuple[int, ...]) -> None:
    emitted, _, _ = served(BERT, Encode(Input([3, 1, 2], [], [], [0, 0, 1, 0, 0, 1]), output))
    assert [tuple(share.shape) for share in emitted] == [shape, (3,)]


def rounds(config: Config, lengths: Sequence[int]) -> dict[str, int]:
    """Of each component, in one pass of a prompt and one of a token, or in one pass of an encoder."""
    job = Encode(Input([*lengths], []), "logits") if isinstance(config, Bert) else Generate(Input([*lengths], []), 2)
    return {name: entry.rounds for name, entry in served(config, job)[2].items()}


@pytest.mark.parametrize("config", [LLAMA, GPT2, BERT], ids=["llama", "gpt2", "bert"])
def test_prompts_together_take_the_rounds_of_the_longest(config: Config) -> None:
    assert rounds(config, [4]) == rounds(config, [4] * 4 if config is LLAMA else [1, 4, 3])


@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_the_last_layer_of_a_prompt_computes_what_is_read(config: Config) -> None:
    """A longer prompt makes the last layer's MLP no dearer; keys and values, and the layers before, are for all."""

    def sent(layers: int, lengths: list[int]) -> dict[str, int]:
        entries = served(with_layers(config, layers), Generate(Input(lengths, []), 1))[2]
        return {name: entry.online for name, entry in entries.items()}

    short, long, deep = sent(1, [2]), sent(1, [6]), sent(2, [6])
    assert short["mlp"] == long["mlp"] and short["attention"] < long["attention"]
    assert deep["mlp"] == 7 * short["mlp"]
