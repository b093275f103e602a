"""The vectors of sentence-transformers itself: a model of each way of pooling, in float, and in fixed point as parties
compute it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from puma.client.sentences import Asked
from puma.local.cluster import LocalCluster
from puma.reference.fixed_session import FixedSession
from puma.reference.plain_model import PlainModel
from tests.models import sentences, tiny
from tests.models.library import compare
from tests.threads import Threads

TEXTS = ["the cat sat on the mat", "a big dog ran home", "it"]
PROMPTS = {"prompts": {"query": "the red hat ", "passage": "then "}, "default_prompt_name": "passage"}
TANH, IDENTITY, RELU = (9, "Tanh", True), (7, "Identity", False), (11, "ReLU", True)
MEAN = {"pooling_mode_mean_tokens": True}


@contextlib.contextmanager
def library() -> Iterator[Any]:
    """sentence-transformers without a word."""
    with compare.quiet(), contextlib.redirect_stderr(io.StringIO()):
        import sentence_transformers

        yield sentence_transformers


def theirs(folder: Path, texts: list[str], **asked: Any) -> Tensor:
    """The library's vectors."""
    names = {"dimensions": "truncate_dim", "normalize": "normalize_embeddings"}
    with library() as found:
        model = found.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        return model.encode(texts, convert_to_tensor=True, **{names.get(k, k): v for k, v in asked.items()}).double()


def ours(clear: PlainModel, session: Any, texts: list[str], **asked: Any) -> Tensor:
    """By a session that answers token ids."""
    how = Asked.of(**asked)
    read = [clear.reading(text, asked=how).tokens for text in texts]
    found = session.encode([t.ids for t in read], "pooled", [t.types for t in read], skip=clear.before(how))
    return torch.stack([clear.finished(vector, how) for vector in found])


def decoder(folder: Path, **settings: Any) -> Path:
    """A body of a decoder, whose class in config.json has a head."""
    return tiny.llama(folder, **settings)


def t5(folder: Path, **settings: Any) -> Path:
    """Both halves, of which the encoder is read."""
    from tests.models import zoo

    return zoo.write(folder, "t5")


def gemma(folder: Path, **settings: Any) -> Path:
    """A body that sees both sides, as EmbeddingGemma's."""
    from tests.models import zoo

    return zoo.write(folder, "embeddinggemma")


FOLDERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what is written, and what is asked
    "cls": ({"pooling": {"pooling_mode_cls_token": True}, "normalise": True}, {}),
    "mean, tanh": ({"pooling": MEAN, "dense": [TANH], "normalise": True}, {}),
    "max": ({"pooling": {"pooling_mode": "max"}}, {"normalize": True}),
    "mean over root": ({"pooling": {"pooling_mode_mean_sqrt_len_tokens": True}, "general": PROMPTS}, {}),
    "weighted, identity": ({"pooling": {"pooling_mode": "weightedmean"}, "dense": [IDENTITY]}, {"dimensions": 5}),
    "three and two": (
        {"pooling": MEAN | {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}}
        | {"dense": [RELU, IDENTITY], "normalise": True},
        {"dimensions": 6, "normalize": True},
    ),
    "last of a decoder": ({"pooling": {"pooling_mode_lasttoken": True}, "body": decoder}, {"prompt_name": "query"}),
    "prompt left out": (
        {"pooling": MEAN | {"include_prompt": False}, "general": PROMPTS, "normalise": True},
        {"prompt_name": "query"},
    ),
    "weighted, prompt left out": (
        {"pooling": {"pooling_mode": "weightedmean", "include_prompt": False}, "general": PROMPTS},
        {"prompt": "a little "},
    ),
    "t5, apart": ({"pooling": MEAN, "dense": [IDENTITY], "inside": "0_Transformer", "body": t5, "normalise": True}, {}),
    "cut": ({"pooling": MEAN, "own": {"max_seq_length": 6, "do_lower_case": True}}, {"truncate": True}),
    "first numbers": ({"pooling": MEAN, "general": {"truncate_dim": 10}, "normalise": True}, {}),
    "embeddinggemma": (
        {"pooling": MEAN, "dense": [(30, "Identity", False), IDENTITY], "body": gemma, "normalise": True}
        | {"general": PROMPTS},
        {"prompt_name": "query", "dimensions": 5, "normalize": True},
    ),
    "nothing said": ({}, {}),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_vectors_are_the_librarys(name: str, tmp_path: Path) -> None:
    written, asked = FOLDERS[name]
    folder = sentences.write(tmp_path / "it", **written)
    if not written:
        (folder / "modules.json").unlink()
    texts = [text.upper() for text in TEXTS] if "own" in written else TEXTS
    expected = theirs(folder, texts, **{key: value for key, value in asked.items() if key != "truncate"})
    clear = PlainModel(folder)
    expected = expected if written else torch.nn.functional.normalize(expected)  # see docs/models.md
    found = ours(clear, clear.session, texts, **asked)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    fixed = ours(clear, FixedSession(clear.config, clear.params), texts, **asked)
    assert float(torch.cosine_similarity(fixed, expected).min()) > 0.9999
    torch.testing.assert_close(fixed, expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("lengths", ["public", "secret"])
def test_three_parties_give_the_librarys_vectors(lengths: str, tmp_path: Path) -> None:
    pooling = MEAN | {"pooling_mode_max_tokens": True, "include_prompt": False}
    folder = sentences.write(tmp_path / "it", pooling, [TANH, IDENTITY], general=PROMPTS)
    expected = theirs(folder, TEXTS, prompt_name="query")
    with Threads() as trio, LocalCluster(PlainModel(folder), trio=trio) as cluster:  # type: ignore[arg-type]
        found = cluster.encode(TEXTS, lengths, prompt_name="query")
    vectors = torch.stack([encoding.values for encoding in found])
    assert float(torch.cosine_similarity(vectors, expected).min()) > 0.9999
    torch.testing.assert_close(vectors, expected, atol=0.02, rtol=0.02)
