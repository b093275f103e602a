"""What each party gets of a prompt, an image or a parameter tells it nothing, however many the outsider shares.

Many prompts of one token, or many pixels and parameters, each with a secret bit that chooses between two; what a party
gets and makes of its part is its view (tests/view.py), which must be uniform: choices of different components, and
all masks, are independent.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from puma import kernels
from puma.local.cluster import LocalCluster
from puma.models.architectures.seq2seq.config import Sound
from puma.models.config import Config, Seq2Seq
from puma.mpc.fixed import RING
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.mpc.retrieval import Choice
from puma.mpc.share import Share
from puma.party import server
from puma.reference.plain_model import PlainModel
from puma.wire import inputs as wired
from puma.wire.input_share import Flagged, InputShare, Seeds
from puma.wire.measured import PIXELS, SOUND, Measured
from puma.wire.messages import Input
from puma.wire.prompt import receive_choice, receive_input, share_input
from tests.cases import coins
from tests.models import tiny
from tests.threads import Threads
from tests.view import Seen, bits_of, findings, independent

VOCABULARY, TOKENS = 16, (3, 10)
RANKS = (DEALER, FIRST, SECOND)


def words_of(share: Share) -> list[Seen]:
    """Both components (copies, n) as words and bits."""
    found = []
    for words in share.components:
        kept = kernels.reduce(words.contiguous(), share.bits).numpy().reshape(words.shape[0], -1)
        bits = (kept[..., None] >> np.arange(share.bits)) & 1
        found.append(Seen("words", bits.reshape(len(kept), -1).astype(np.int8), kept, share.bits))
    return found


def choices_of(choice: Choice) -> list[Seen]:
    """This party's bits of its two components, each among so many rows."""
    raw = [np.unpackbits(bits.numpy(), axis=-1, bitorder="little") for bits in choice.bits]
    return [Seen("choice", bits[:, : choice.size].astype(np.int8), None, 1) for bits in raw]


def received(share: InputShare, of: int, tokens: int, flags: int) -> Flagged:
    """What the party of this rank makes of its part."""
    made = receive_input(Party(of, {}, {}), share, tokens, VOCABULARY, flags)
    assert isinstance(made, Flagged)
    return made


def test_tokens_of_one_prompt_are_hidden_with_their_signs_and_flags() -> None:
    secret = coins(800, seed=1)
    ids = torch.tensor(TOKENS)[secret].tolist()
    shares = share_input(ids, VOCABULARY, flags=secret.tolist())
    for of in RANKS:
        made: Any = received(shares[of], of, len(ids), len(ids))
        flags = [part._replace(name="flag") for part in words_of(made.flags)]
        view = choices_of(made.rows) + words_of(made.rows.signs) + flags  # type: ignore[arg-type]
        assert findings(view, secret.numpy().astype(np.int8), weights=(1, 2)) == [], f"P{of}"


def test_prompts_of_one_process_are_hidden_together() -> None:
    """A prompt each, with the first bytes of its seeds: what a process keeps from one prompt to the next would show."""
    secret = coins(700, seed=2)
    parts: dict[int, list[list[np.ndarray]]] = {of: [] for of in RANKS}
    for bit in secret.tolist():
        for of, share in enumerate(share_input([TOKENS[bit]], VOCABULARY, flags=[bit])):
            made: Any = received(share, of, 1, 1)
            seeds = [np.unpackbits(np.frombuffer(seed[:8], np.uint8)) for seed in share.masks + share.choices]
            view = choices_of(made.rows) + words_of(made.rows.signs) + words_of(made.flags)  # type: ignore[arg-type]
            parts[of].append([*seeds, *(part.bits[0] for part in view)])
    for of in RANKS:
        seen = [Seen("prompt", np.stack([np.concatenate(row) for row in parts[of]]).astype(np.int8), None, 1)]
        assert findings(seen, secret.numpy().astype(np.int8)) == [], f"P{of}"


def test_each_party_gets_the_seeds_that_are_meant_for_it() -> None:
    """No seed serves twice, and nobody is given one of a component that it must not know."""
    zero, one, two = share_input([1, 2], VOCABULARY)
    assert (zero.masks[:1], zero.masks[1:]) == (one.masks, two.masks) and zero.payload.numel() == 0
    assert (len(zero.choices), len(one.choices), len(two.choices)) == (2, 1, 0)
    seeds = [*zero.masks, *zero.choices, *one.choices]
    assert len(set(seeds)) == len(seeds) == 5 and {len(seed) for seed in seeds} == {32}


@pytest.mark.parametrize("kind", [PIXELS, SOUND], ids=lambda kind: kind.purpose)
def test_pixels_and_sound_are_hidden(kind: Measured) -> None:
    secret = coins(300, seed=3)
    shares = kind.share_input(torch.where(secret.bool(), -1.5, 2.25).unsqueeze(1).double(), 1)
    for of in RANKS:
        view = words_of(kind.receive_input(Party(of, {}, {}), shares[of], len(secret), 1))
        assert findings(view, secret.numpy().astype(np.int8), weights=(1, 2)) == [], f"P{of}"
    assert shares[DEALER].payload.numel() == 0
    assert shares[DEALER].masks[:1] == shares[FIRST].masks and shares[DEALER].masks[1:] == shares[SECOND].masks
    assert shares[FIRST].masks != shares[SECOND].masks


BEGINS: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 2}
TEXTS = Seq2Seq(encoder_layers=1, **BEGINS)
SOUNDS = Seq2Seq(  # of two rows of one band
    encoder_layers=1, context=1, answers=9, pre_norms=True, embedded_norm=False, sound=Sound(bands=1), **BEGINS
)


@pytest.mark.parametrize("config", [TEXTS, SOUNDS], ids=["texts", "sound"])
def test_what_answers_begin_with_is_hidden_with_what_is_read(config: Config) -> None:
    """Such as the code of a language, behind a text or beside a sound: alone, and beside what else the party gets."""
    secret = coins(700, seed=4)
    begun = [[TOKENS[bit]] for bit in secret.tolist()]
    items: list[Any] = begun if config is TEXTS else [torch.full((2, 1), 2.25 * bit) for bit in secret.tolist()]
    laid = wired.laid_out(config, items, begun=begun)
    for of, share in enumerate(wired.share_input(config, laid)):
        job = Input(laid.lengths, share.masks, share.choices, begun=1)
        made: Any = wired.receive_input(config, Party(of, {}, {}), job, share.payload)
        read, tokens = made.prompts, made.tokens
        view = choices_of(tokens) + words_of(tokens.signs)
        view += choices_of(read) + words_of(read.signs) if config is TEXTS else words_of(read.reshape(700, 2))
        assert findings(view, secret.numpy().astype(np.int8), weights=(1, 2)) == [], f"P{of}"


# -- what it must see ---------------------------------------------------------------------------------------------


def _one_seed(seeds: Seeds, where: Iterable[tuple[str, int, int]]) -> Seeds:
    for name, to, source in where:
        getattr(seeds, name)[to] = getattr(seeds, name)[source]
    return seeds


@pytest.mark.parametrize(
    ("where", "of"),
    [(("choices", 1, 0), FIRST), (("choices", 2, 0), SECOND), (("choices", 2, 1), DEALER), (("masks", 1, 0), DEALER)],
    ids=["choices of m and l1", "choices of m and l2", "choices of l1 and l2", "both sign masks"],
)
def test_components_under_one_seed_are_noticed(
    where: tuple[str, int, int], of: int, no_position_serves_twice: Any
) -> None:
    seeds, secret = _one_seed(Seeds.fresh(), [where]), coins(400, seed=1)
    share = share_input(torch.tensor(TOKENS)[secret].tolist(), VOCABULARY, seeds)[of]
    made = receive_choice(Party(of, {}, {}), share, len(secret), VOCABULARY)
    assert not independent(bits_of(choices_of(made) + words_of(made.signs)))
    assert no_position_serves_twice.repeats, "and the watch over streams sees it as well"
    no_position_serves_twice.repeats.clear()


# -- in a session -------------------------------------------------------------------------------------------------


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[InputShare]]:
    """All that parties in threads receive as inputs, by rank."""
    heard: dict[int, list[InputShare]] = {of: [] for of in RANKS}
    real = server.receive_input

    def noting(config: Config, party: Party, job: Input, payload: torch.Tensor, flags: int) -> Any:
        heard[party.rank].append(InputShare(job.masks, job.choices, payload))
        return real(config, party, job, payload, flags)

    monkeypatch.setattr(server, "receive_input", noting)
    return heard


def test_each_prompt_and_each_choice_has_its_own_seeds(tmp_path: Path, inputs: dict[int, list[InputShare]]) -> None:
    clear = PlainModel(tiny.llama(tmp_path, num_hidden_layers=1))
    with Threads() as trio:
        cluster = LocalCluster(clear, trio=trio, reveal_logits=True)  # type: ignore[arg-type]
        for _ in range(2):
            cluster.generate("the cat", 3, top_k=1)
        cluster.generate("the cat", 2)
    assert [len(inputs[of]) for of in RANKS] == [7, 7, 7]  # two prompts with two choices each, and one without
    seeds = [seed for share in inputs[DEALER] for seed in share.masks + share.choices]
    seeds += [seed for share in inputs[FIRST] for seed in share.choices]
    assert len(set(seeds)) == len(seeds) == 5 * 7
    for own in (inputs[FIRST], inputs[SECOND]):
        payloads = [share.payload.numpy().tobytes() for share in own]
        assert len(set(payloads)) == len(payloads)


def test_every_parameter_has_masks_of_its_own(tmp_path: Path) -> None:
    """Also parameters that are alike: two norms of ones look as different as any two."""
    clear = PlainModel(tiny.llama(tmp_path, num_hidden_layers=2))
    with Threads() as trio:
        LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
        held = {of: _firsts(trio.servers[of].engine) for of in RANKS}  # type: ignore[arg-type]
    for of in RANKS:
        words = [bytes(word) for pair in held[of].values() for word in pair]
        assert len(set(words)) == len(words) > 20, f"P{of}"
    for name, (l1, l2) in held[DEALER].items():
        assert held[FIRST][name][1] == l1 and held[SECOND][name][1] == l2
        assert held[FIRST][name][0] == held[SECOND][name][0]


def test_two_sharings_have_nothing_in_common(tmp_path: Path) -> None:
    """The same model again, in the same session: fresh seeds, and so words that are all different."""
    clear = PlainModel(tiny.llama(tmp_path, num_hidden_layers=1))
    with Threads() as trio:
        words = []
        for _ in range(2):
            LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
            words += [w for pair in _firsts(trio.servers[FIRST].engine).values() for w in pair]
    assert len(set(words)) == len(words) > 20


def _firsts(engine: Any) -> dict[str, tuple[bytes, bytes]]:
    """The first eight words of both components of each parameter."""
    found: dict[str, tuple[bytes, bytes]] = {}
    for i, parameter in enumerate({id(p): p for p in engine.params}.values()):
        a, b = (kernels.reduce(t.reshape(-1)[:8].contiguous(), RING) for t in parameter.components)
        found[str(i)] = a.numpy().tobytes(), b.numpy().tobytes()
    return found
