"""POST /v1/rerank: documents in the order of how well they answer a query, in the shape that Jina, Cohere and vLLM
share, or in that of text-embeddings-inference (TEI)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from puma.client.heads.asking import kind
from puma.client.heads.ranking import Ranked, label_of
from puma.client.heads.ranking import read as pairs
from puma.gateway import replies
from puma.gateway.refusals import Refused, blamed
from puma.gateway.requests import RerankRequest, read
from puma.gateway.service import Gateway
from puma.gateway.streams import request_id, while_there
from puma.models.reading.cutting import Cut


async def rerank(gateway: Gateway, request: Request) -> Response:
    """All documents go to the parties together, or in several requests one after the other where they are too many."""
    asked = read(await request.body(), RerankRequest)
    if asked.model is not None:
        gateway.known(asked.model)
    if kind(gateway.model) not in ("classes", "choice"):
        name = gateway.settings.name
        raise Refused(f"{name} ranks nothing: use a cross-encoder, which has a head for classes", "model")
    with blamed("label"):
        label_of(gateway.model, asked.label)
    cut: Cut = "" if asked.truncate is False else "longest_first"
    with blamed("documents" if asked.texts is None else "texts"):
        tokens = sum(len(piece.ids) for piece in pairs(gateway.model, asked.query, asked.given, cut))

    def run(cluster: Any) -> Generator[list[Ranked], None, None]:
        yield from cluster.ranking(asked.query, asked.given, asked.top_n, asked.label, cut, bool(asked.raw_scores))

    job = gateway.submit(run, request, tokens)
    *_, ranked = [item async for item in while_there(request, job)] or [[]]  # nothing for who has left
    results = [_result(one, asked) for one in ranked]
    answer = results if asked.texts is not None else replies.rerank(results, gateway.settings.name, tokens)
    return JSONResponse(answer, headers=request_id(job))


def _result(one: Ranked, asked: RerankRequest) -> dict[str, Any]:
    """What was cut says so: the asker may want to know that its end was not read."""
    if asked.texts is not None:
        found: dict[str, Any] = {"index": one.index, "score": one.score} | ({"text": one.text} if asked.shown else {})
    else:
        found = {"index": one.index, "relevance_score": one.score}
        found |= {"document": {"text": one.text}} if asked.shown else {}
    return found | ({"truncated": True} if one.cut else {})
