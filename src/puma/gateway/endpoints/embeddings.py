"""POST /v1/embeddings: vectors of texts, as sentence-transformers gives them for the model's folder."""

from __future__ import annotations

import base64
from collections.abc import Generator
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from puma import kernels
from puma.client.sentences import Asked, Reading, passage
from puma.gateway import replies
from puma.gateway.refusals import Refused, blamed
from puma.gateway.requests import EmbeddingsRequest, read
from puma.gateway.service import Gateway
from puma.gateway.streams import request_id, while_there
from puma.models import heads, inputs

QUERIES, DOCUMENTS = ("query", "search_query"), ("document", "passage", "search_document")


async def embeddings(gateway: Gateway, request: Request) -> Response:
    """Texts go to the parties in as few requests as these can take, in order."""
    asked = read(await request.body(), EmbeddingsRequest)
    gateway.known(asked.model)
    config = gateway.model.config
    if not inputs(config).tokenized or heads(config).generates or heads(config).labels:
        hint = "use a model for sentences, or one without a head"
        raise Refused(f"{gateway.settings.name} makes no embeddings: {hint}", "model")
    how = _how(gateway.model, asked)
    with blamed("input"):
        texts = [_reading(gateway.model, each, how) for each in asked.texts]
    if isinstance(asked.texts[0], list):  # what goes before a text is in its ids
        how = replace(how, prompt="", prompt_name=None)

    def run(cluster: Any) -> Generator[list[torch.Tensor], None, None]:
        for part in cluster.encoded(texts, how):
            yield [encoding.values for encoding in part]

    tokens = sum(len(each.tokens.ids) for each in texts)
    job = gateway.submit(run, request, tokens)
    vectors = chain.from_iterable([part async for part in while_there(request, job)])
    encoded = [_base64(v) if asked.encoding_format == "base64" else v.tolist() for v in vectors]
    return JSONResponse(replies.embeddings(encoded, gateway.settings.name, tokens), headers=request_id(job))


def _how(model: Any, asked: EmbeddingsRequest) -> Asked:
    """What is asked of texts and vectors. One that is cut has length one again where the model's have, as at OpenAI."""
    name, param = asked.prompt_name, "prompt_name"
    if asked.input_type is not None:
        name, param = asked.input_type, "input_type"
        name = "query" if name in QUERIES else passage(model.wording) if name in DOCUMENTS else name
    normalize = asked.normalize
    if normalize is None and asked.dimensions is not None and model.wording.normalised:
        normalize = True
    with blamed("dimensions"):
        how = Asked.of(None, name, asked.cut, asked.dimensions, normalize)
        how.check(model.width)
    with blamed(param):
        how.before(model.wording)
    return how


def _reading(model: Any, given: str | list[int], how: Asked) -> Reading:
    if isinstance(given, str):
        return model.reading(given, asked=how)
    if how.prompt_name is not None:
        raise Refused("a prompt goes before a text, and not before token ids", "prompt_name")
    return model.framed(given)


def _base64(vector: torch.Tensor) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients ask for them."""
    return base64.b64encode(kernels.to_wire(vector.float())).decode()
