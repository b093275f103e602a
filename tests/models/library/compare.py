"""Hold one checkpoint against transformers: equal to it, or refused by a named error; anything else fails."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from puma.errors import PumaError
from puma.models import heads, images, inputs
from puma.models.checkpoint import load
from tests.models import zoo
from tests.models.library import names
from tests.models.library.names import Renamed
from tests.models.library.settings import Case
from tests.models.plain import one_hot, open_model

IDS = [2, 5, 7, 9, 27, 6, 8, 20, 3, 11, 4, 19, 22, 10]
FORM = {"format": "pt"}
EQUAL, REFUSED, NOT_THEIRS = "equal", "refused", "transformers refuses it"


@contextlib.contextmanager
def quiet() -> Iterator[Any]:
    """transformers without a word."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        import transformers

        transformers.utils.logging.set_verbosity(logging.CRITICAL)
        transformers.utils.logging.disable_progress_bar()
        yield transformers


def made(case: Case, folder: Path) -> Any | None:
    """transformers' model of a config.json, with random weights, which lie in the folder, too; None if it refuses."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(case.raw))
    with quiet() as transformers:
        try:
            kind = getattr(transformers, case.architecture)
            model = kind(transformers.AutoConfig.from_pretrained(folder)).eval()
            zoo.fill(model)
            model.save_pretrained(folder / "saved")
            answers(model, case)
        except Exception:
            return None
    (folder / "saved" / "model.safetensors").rename(folder / "model.safetensors")
    return model


def answers(model: Any, case: Case, read: Sequence[int] = IDS) -> dict[str, torch.Tensor]:
    """What transformers computes of these ids, by what it is."""
    with torch.no_grad(), quiet():
        if case.model_type == "vit":
            found = model(pixels(model.config), output_hidden_states=True)
            return {"labels": found.logits} if "logits" in found else {"states": states(found)}
        if case.model_type == "clip_vision_model":
            return _seen(model(pixels(model.config)))
        if case.model_type == "whisper":
            return _answered(model, spectrum(model.config))
        ids = torch.tensor([read])
        if case.model_type == "clip_text_model":
            return _seen(model(ids))
        if getattr(model.config, "is_encoder_decoder", False) and "Sequence" not in case.architecture:
            return _answered(model, ids)
        if "MultipleChoice" in case.architecture:
            return {"labels": model(ids[None]).logits}
        found = model(ids, output_hidden_states=True)
    if "QuestionAnswering" in case.architecture:
        return {"states": states(found), "labels": torch.stack([found.start_logits, found.end_logits], -1)}
    of_classes = ("SequenceClassification", "TokenClassification", "NextSentencePrediction")
    heads = dict.fromkeys(of_classes, "labels") | {"MaskedLM": "predicted"}
    head = next((name for task, name in heads.items() if task in case.architecture), "logits")
    return {"states": states(found), head: found.get("logits")}


def _seen(found: Any) -> dict[str, torch.Tensor]:
    """What a tower of CLIP gives."""
    vector = next(found[name] for name in ("image_embeds", "text_embeds", "pooler_output") if name in found)
    return {"states": states(found), "vector": vector}


def states(found: Any) -> torch.Tensor:
    """The last hidden states (rows, width)."""
    if "last_hidden_state" in found:
        return found.last_hidden_state.flatten(0, 1)
    whole = (found.get("decoder_hidden_states") or found.hidden_states)[-1]
    return whole.flatten(0, 1)


def _answered(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    encoded = model.get_encoder()(ids).last_hidden_state[0]
    if "Conditional" not in type(model).__name__ and "MTModel" not in type(model).__name__:
        return {"states": encoded}
    start = model.config.decoder_start_token_id
    if start is None:
        raise ValueError("no start")
    return {"states": encoded, "first": model(ids, decoder_input_ids=torch.tensor([[start]])).logits[0]}


def pixels(config: Any) -> torch.Tensor:
    """An image."""
    side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    generator = torch.Generator().manual_seed(3)
    channels = getattr(config, "num_channels", None) or config.channels
    return torch.randn(1, channels, side, side, generator=generator)


def spectrum(config: Any) -> torch.Tensor:
    """A window of sound (1, bands, rows)."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(1, config.num_mel_bins, 2 * config.max_source_positions, generator=generator)


def within(folder: Path) -> list[int]:
    """As many of the ids as our context has: of more we compute nothing, and the library perhaps other positions."""
    try:
        config = load(folder).config
    except PumaError:
        return IDS
    return IDS if hasattr(config, "image_size") else IDS[: inputs(config).context]


def ours(folder: Path) -> dict[str, Any]:
    """What we compute, by what it is."""
    checkpoint, model = open_model(folder)
    config: Any = checkpoint.config
    if hasattr(config, "image_size"):
        rows = images.patches(config, pixels(config)[0])
        hidden = model(rows)
        vector = model.embed(hidden, [config.context]) if not config.labels else None
        return {"states": hidden, "labels": model.classify(hidden) if config.labels else None, "vector": vector}
    read = inputs(config)
    ids = within(folder)
    rows, length = one_hot(ids, config.vocab_size), len(ids)
    if read.kind == "audio":
        said = SimpleNamespace(num_mel_bins=read.width, max_source_positions=read.context)
        rows, length = spectrum(said)[0].T, read.context
    hidden = model.states(rows, [length])
    found = {"states": hidden}
    if config.pooling.modes:
        found["vector"] = model.embed(hidden, [len(ids)])
    if getattr(config, "labels", ()):
        found["labels"] = model.classify(hidden).reshape(-1, len(config.labels))
    if getattr(config, "predicts", False):
        found["predicted"] = model.predict(hidden, range(len(ids)))
    if hasattr(model, "every") and not (config.labels or config.headless):
        found["logits"] = model.every(rows)
    if read.apart and heads(config).generates:
        found["first"] = model(rows)
    return found


def judged(folder: Path, expected: dict[str, torch.Tensor] | None) -> str:
    """What came of it; AssertionError if our numbers are others, and whatever is no named error goes through."""
    try:
        if expected is None:
            load(folder).fold()
            return NOT_THEIRS
        found = ours(folder)
    except PumaError as error:
        assert error.hint
        return NOT_THEIRS if expected is None else f"{REFUSED}: {error.message}"
    for name, tensor in expected.items():
        if tensor is not None:
            mine = found[name].reshape(-1, tensor.shape[-1])
            assert_close(
                mine, tensor.reshape(-1, tensor.shape[-1]), atol=5e-5, rtol=5e-5, msg=lambda m, n=name: f"{n}: {m}"
            )
    return EQUAL


def tried(case: Case, folder: Path) -> str:
    """A config.json against transformers, which makes the weights."""
    model = made(case, folder)
    return judged(folder, None if model is None else answers(model, case, within(folder)))


def renamed(asked: Renamed, folder: Path) -> str:
    """A file whose names or tensors were changed, against what transformers reads of it.

    It knows no wrappers, and so reads the file without; where it lacks tensors, and would make some up, we refuse.
    """
    model = made(asked.case, folder)
    assert model is not None
    state, read = load_file(folder / "model.safetensors"), model
    for change in sorted(asked.changes, key=names.WRAPPING.__contains__):
        changed = names.CHANGES[change](state, model)
        if changed is None:
            return NOT_THEIRS
        state = changed
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors", FORM)
        read = read if change in names.WRAPPING else reread(asked.case, folder)
    return judged(folder, None if read is None else answers(read, asked.case))


def reread(case: Case, folder: Path) -> Any | None:
    """transformers' model of a folder; None if it does not find all tensors there."""
    with quiet() as transformers:
        kind = getattr(transformers, case.architecture)
        try:
            model, report = kind.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
        except Exception:
            return None
    lacking = {name for name in report["missing_keys"] if "pooler" not in name}
    return None if lacking or report["mismatched_keys"] else model.eval()
