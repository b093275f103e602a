"""Whoever answers token ids is asked in one way, and the text's question is nobody else's word."""

import inspect
from typing import Any

import pytest

from puma.client.client import Client
from puma.client.connect import RemoteCluster
from puma.client.protocol import TokenSession
from puma.client.session import Session
from puma.local.cluster import LocalCluster
from puma.reference.fixed_session import FixedSession
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel


def parameters(method: Any) -> list[tuple[str, Any]]:
    """Names and defaults, in their order."""
    return [(name, parameter.default) for name, parameter in inspect.signature(method).parameters.items()]


@pytest.mark.parametrize("kind", [Session, FixedSession, Plain])
@pytest.mark.parametrize("name", ["continued", "encode", "fill"])
def test_a_session_is_asked_as_the_protocol_says(kind: type, name: str) -> None:
    asked = parameters(getattr(TokenSession, name))
    assert parameters(getattr(kind, name))[: len(asked)] == asked


def test_beams_are_asked_for_in_one_way() -> None:
    assert parameters(Plain.search) == parameters(Session.search)


@pytest.mark.parametrize("name", ["generate", "stream", "stream_ids", "search", "encode", "fill"])
def test_only_a_client_is_asked_with_text(name: str) -> None:
    for kind in (LocalCluster, RemoteCluster):
        assert getattr(kind, name) is getattr(Client, name)
    assert not hasattr(PlainModel, name)


@pytest.mark.parametrize("kind", [Session, FixedSession, Plain])
def test_token_ids_do_not_go_by_the_text_s_name(kind: type) -> None:
    assert not hasattr(kind, "generate")
