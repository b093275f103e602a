"""POST /v1/embeddings: of an encoder's token states the first or the mean, as its folder says, normalised."""

from __future__ import annotations

import base64
from collections.abc import Generator
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from puma import kernels
from puma.gateway import replies
from puma.gateway.refusals import Refused, blamed
from puma.gateway.requests import EmbeddingsRequest, read
from puma.gateway.service import Gateway
from puma.gateway.streams import request_id, while_there
from puma.gateway.watch import ID_HEADER
from puma.models import heads, inputs


async def embeddings(gateway: Gateway, request: Request) -> Response:
    """All texts go to the parties in one batch."""
    asked = read(await request.body(), EmbeddingsRequest)
    gateway.known(asked.model)
    config = gateway.model.config
    if not inputs(config).tokenized or heads(config).generates or heads(config).labels:
        raise Refused(f"{gateway.settings.name} makes no embeddings: use a BERT model without a head", "model")
    if asked.encoding_format not in (None, "float", "base64"):
        raise Refused("encoding_format is float or base64", "encoding_format")
    width = config.hidden_size
    if asked.dimensions not in (None, width):
        raise Refused(f"embeddings of this model have {width} dimensions", "dimensions")
    with blamed("input"):
        tokens = sum(len(gateway.model.sentence_ids(text).ids) for text in asked.texts)

    def run(cluster: Any) -> Generator[list[torch.Tensor], None, None]:
        yield [encoding.values for encoding in cluster.encode(asked.texts)]

    job = gateway.submit(run, request.headers.get(ID_HEADER))
    (vectors,) = [item async for item in while_there(request, job)]
    encoded = [_base64(v) if asked.encoding_format == "base64" else v.tolist() for v in vectors]
    return JSONResponse(replies.embeddings(encoded, gateway.settings.name, tokens), headers=request_id(job))


def _base64(vector: torch.Tensor) -> str:
    """Little-endian 32-bit floats, as OpenAI's clients ask for them."""
    return base64.b64encode(kernels.to_wire(vector.float())).decode()
