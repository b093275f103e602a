"""`puma gateway`: an OpenAI-compatible endpoint on this machine, in front of three parties here or in a cluster.

Nothing is answered here; the server stops by Ctrl-C.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

import puma
from puma import config
from puma.cli import ui
from puma.cli.audits import NEVER, Audits
from puma.cli.options import FITTED, HUMAN, NO_DRAFTS, Count, Drafting, Fitting, Flag, Output, Several
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.gateway.service import Gateway
    from puma.gateway.settings import Settings

INSTALL = "install it from Puma's source folder: pip install -c constraints.txt '.[gateway]'"


def gateway(
    source: Annotated[str | None, Parameter(name="MODEL")] = None,
    /,
    *,
    adapter: str | None = None,
    cluster: Path | None = None,
    as_: Annotated[Path | None, Parameter(name="--as")] = None,
    model: str | None = None,
    host: str = "127.0.0.1",
    hostname: Several = (),
    port: Count = 8000,
    max_tokens: Count = 512,
    temperature: float | None = None,
    fixed_length: Flag = False,
    reveal_logits: Flag = False,
    out_of_range: Literal["refuse", "warn"] = "refuse",
    plan: str | None = None,
    together: Count = 64,
    queue: Count = 64,
    api_key: Path | None = None,
    forget: Flag = False,
    drain: float = 30.0,
    store: Path | None = None,
    drafting: Drafting = NO_DRAFTS,
    open_weights: Flag = False,
    fitting: Fitting = FITTED,
    audits: Audits = NEVER,
    output: Output = HUMAN,
) -> None:
    """Serve OpenAI's endpoints and a page to chat, on this machine; it sees prompts and answers, the parties do not.

    Parameters
    ----------
    source
        A checkpoint's folder, a GGUF file or a hub name, served by three processes on this machine; the embedded
        model, stories, if left out.
    adapter
        A LoRA adapter to merge into it: a folder as peft writes it, or a name on the hub.
    cluster
        A cluster file, to ask three parties elsewhere instead.
    as_
        The key to show to that cluster.
    model
        The model's name there.
    host
        The address to listen on; anything but this machine's own is open to others, who then see what it sees.
    hostname
        A name by which others call it, without port, as a proxy passes it on; may be repeated. Requests that name
        another host are refused; this machine's own and the address at which it is reached need not be named.
    port
        The port; 0 for any that is free.
    max_tokens
        New tokens of an answer, at most.
    temperature
        Of requests that name none; 0 for the likeliest token. The model's own unless given, or 1 if it names none.
    fixed_length
        Always compute as many tokens as are asked for, so that the parties do not learn how long answers are.
    reveal_logits
        As the owner of a model on this machine: let clients see logits, for top_p, top_k, seed and logprobs.
    out_of_range
        warn: give answers although a number left its range; their finish_reason is then out_of_range.
    plan
        Which functions take fewer rounds and more words: lean none, quick what sends little more, auto as the
        network between the parties has it, or their names with commas between. Unless given auto with a cluster, and
        else lean, also where parties are audited.
    together
        How many requests may be with the parties at a time, each in a session of its own.
    queue
        How many may wait for these.
    api_key
        A file of API keys with their limits; whoever asks then needs one. Anybody may ask unless given.
    forget
        Let the parties keep nothing of a chat; else they keep what they computed for a while, so that the next turn
        pays for its new tokens only, and learn that it goes on.
    drain
        Seconds that answers under way may take when it is told to stop by SIGTERM.
    store
        A folder where the parties on this machine keep their shares.
    open_weights
        The weights of a model on this machine are no secret: only prompts and answers are hidden, which is quicker.
    """
    from puma.client.arguments import distant

    server = _server()
    if max_tokens < 1 or queue < 0 or together < 1 or drain < 0 or not 0 <= (temperature or 0) <= 2:
        raise UsageError("a limit or temperature that makes no sense", "see `puma gateway --help`")
    keys = _keys(api_key)
    if fixed_length and drafting.draft:
        what = "--fixed-length hides how long answers are, and drafts tell how easily they are guessed"
        raise UsageError(what, "leave out one of both")
    local = source or adapter or store or reveal_logits or open_weights or fitting != FITTED
    _check_roles(local, cluster, as_, model)
    audits.check(cluster, drafting.draft)
    if audits.every:
        distant(plan, True)
    hosts = _called(host, hostname)
    with server.listen(host, port) as bound:
        policy = (reveal_logits, "open" if open_weights else "hidden")
        how = (policy, bool(audits.every), store, fitting, output)
        start, clear, seen = _starter(source, adapter, cluster, as_, model, *how)
        drawn = _drawn(clear, temperature, seen)
        start = partial(_judging, start, out_of_range, plan)
        if audits.every and cluster is not None and as_ is not None:
            start = audits.of(start, cluster, as_)
        called = model or (source if adapter is None else clear.name)
        settings = _settings(called, cluster, hosts, drawn)
        settings = replace(
            settings, most=max_tokens, fixed=fixed_length, waiting=queue, together=together, keeps=not forget,
            drain=drain, draft=drafting.draft,
        )  # fmt: skip
        made = _gateway(clear, start, settings, keys)
        _greet(made, bound, host, made.settings.local, fixed_length, output.json)
        server.run(made, bound)


def _server() -> Any:
    try:
        from puma.gateway import server
    except ImportError as error:
        raise UsageError(f"the gateway needs {error.name}, which is not installed", INSTALL) from None
    return server


def _check_roles(here: Any, cluster: Path | None, key: Path | None, name: str | None) -> None:
    """Parties are here or in a cluster, and options belong to one of both."""
    if cluster is None and (key is not None or name is not None):
        raise UsageError("--as and --model belong to a cluster", "add --cluster FILE, or leave them out")
    if cluster is not None and here:
        raise UsageError("a cluster has its own models, stores and policy", "leave out MODEL and its options")
    if cluster is not None and (key is None or name is None):
        raise UsageError("a cluster wants to know who asks for what", "add --as KEY and --model NAME")


def _starter(
    source: str | None, adapter: str | None, cluster: Path | None, key: Path | None, name: str | None,
    policy: tuple[bool, str], audited: bool, store: Path | None, fitting: Fitting, output: Output,
) -> tuple[Callable[[], Any], Any, bool]:  # fmt: skip
    """What makes a session, the first of which is there already, the public side of its model, and whether clients may
    see its logits."""
    if cluster is not None:
        asked: dict[str, Any] = {"model": name, "key": str(key), "audited": audited}
        start = partial(puma.connect, str(cluster), **asked)  # type: ignore[attr-defined]
        first = start()
        return _after(first, start), first.model, first.session.reveals
    from puma.local.cluster import LocalCluster
    from puma.reference.plain_model import PlainModel

    reveal, weights = policy
    with ui.progress(output.json) as progress:
        clear = PlainModel(source, adapter)
        ui.assumed(clear.config)
        clear.plan(fitting.settings(), progress)
        how: dict[str, Any] = {"store": store, "reveal_logits": reveal, "weights": weights}
        start = partial(LocalCluster, clear, **how)
        first = start(progress)
    return _after(first, start), clear, reveal


def _drawn(clear: Any, temperature: float | None, seen: bool) -> tuple[float, int, float]:
    """Temperature, top_k and top_p of requests that name none, and a line about what of the model's own they lack."""
    from puma.client.tokens.rules import UNSEEN, named

    chances = clear.rules.chances
    clear.warn_of_rules("" if seen else UNSEEN)
    needy = {name: value for name, value in chances.items() if name != "temperature"}
    if needy and not seen:
        ui.note(f"note: {named(needy)} of the model's own need logits: requests are sampled without")
    first = chances.get("temperature", 1.0) if temperature is None else temperature
    return (min(first, 2.0), chances.get("top_k", 0), chances.get("top_p", 1.0)) if seen else (min(first, 2.0), 0, 1.0)


def _judging(start: Callable[[], Any], out_of_range: str, plan: str | None) -> Any:
    """A session that gives or refuses answers which may be wrong, and asks by a plan."""
    cluster = start()
    cluster.out_of_range = out_of_range
    if plan is not None:
        cluster.variants = plan
    return cluster


def _after(first: Any, start: Callable[[], Any]) -> Callable[[], Any]:
    """Gives the session that is there already, then new ones."""
    ready = [first]
    return lambda: ready.pop() if ready else start()


def _called(host: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """By which names it may be asked for."""
    from puma.gateway.settings import LOOPBACK, called

    return tuple(dict.fromkeys((*LOOPBACK, called(host.partition("%")[0]), *map(called, names))))


def _keys(path: Path | None) -> Any:
    """Who may ask; anybody without a file."""
    from puma.gateway.load.keys import Keys

    return None if path is None else Keys.read(path)


def _settings(
    source: str | None, cluster: Path | None, hosts: tuple[str, ...], drawn: tuple[float, int, float]
) -> Settings:  # fmt: skip
    from puma.gateway.settings import HERE, Settings, short_name

    p0, p1, p2 = (HERE, HERE, HERE) if cluster is None else (HERE if _is_loopback(h) else h for h in _hosts(cluster))
    temperature, top_k, top_p = drawn
    return Settings(
        short_name(source), temperature=temperature, top_k=top_k, top_p=top_p, hosts=hosts, places=(p0, p1, p2)
    )


def _gateway(clear: Any, start: Callable[[], Any], settings: Settings, keys: Any) -> Gateway:
    from puma.gateway.service import Gateway

    return Gateway(clear, start, settings, keys)


def _hosts(cluster: Path) -> list[str]:
    """Where P0, P1 and P2 are, by the cluster file."""
    parties = sorted(config.read(cluster).parties, key=lambda party: party.rank)
    return [party.host_port[0] for party in parties[: config.PARTIES]]


def _greet(made: Gateway, bound: Any, host: str, here: bool, fixed: bool, as_json: bool) -> None:
    """Where it is, and who sees what; JSON only once, as everywhere."""
    address, port = bound.getsockname()[:2]
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}"
    if as_json:
        ui.answer({"url": url, "model": made.settings.name})
        return
    ui.say(f"{made.settings.name} at {url}/v1; a page to chat at {url}/")
    ui.say("This program sees prompts and answers in the clear, as you do; the parties do not.")
    if fixed:
        ui.say("The parties compute as many tokens as a request asks for, and learn that number.")
    else:
        ui.say("The parties stop where an answer ends, and learn how many tokens it has: --fixed-length hides that.")
    if not _is_loopback(host):
        ui.say(f"WARNING: {host} is open to other machines. Nothing protects this port: whoever reaches it may ask,")
        ui.say("and whoever listens on the way reads prompts and answers.")
        ui.say("It answers to the address at which it is reached, and to names that --hostname gives it.")
    if here:
        ui.say(ui.LOCAL)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
