"""`puma keys`: make, renew and show the key by which a machine or a person is known to a cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from puma.cli import ui
from puma.cli.options import HUMAN, Count, Output

SEND = """\
Send the fingerprint, or the .crt file, to whoever writes the cluster file, in a way that shows it is from you,
and compare it by voice. A party sends its address, too. The .key file stays here: never send it.\
"""


def new(name: str, /, *, dir: Path = Path(), days: Count | None = None, output: Output = HUMAN) -> None:
    """Make a key and its certificate, NAME.key and NAME.crt; nothing is overwritten.

    Parameters
    ----------
    name
        What to call it: a person, or a party such as p0.
    dir
        The folder for the two files; this one unless given.
    days
        How long the certificate is valid; 3650 unless given.
    """
    from puma.crypto import identity

    made = identity.create(name, dir, identity.DAYS if days is None else days)
    if output.json:
        ui.answer(_facts(made))
        return
    ui.say(f"{made.key}  the key: secret, readable by you alone")
    ui.say(f"{made.certificate}  the certificate: public, valid until {made.expires:%Y-%m-%d}")
    ui.say(f"fingerprint  {made.fingerprint}")
    ui.say()
    ui.say(SEND)


def renew(file: Path, /, *, days: Count | None = None, output: Output = HUMAN) -> None:
    """Replace a certificate by one that lasts longer, with the same key and fingerprint.

    Parameters
    ----------
    file
        NAME.key or NAME.crt.
    days
        How long from now it is valid; 3650 unless given.
    """
    from puma.crypto import identity

    made = identity.renew(file, identity.DAYS if days is None else days)
    if output.json:
        ui.answer(_facts(made))
        return
    ui.say(f"{made.certificate}  valid until {made.expires:%Y-%m-%d}; restart what uses it")
    ui.say(f"fingerprint  {made.fingerprint} (as before: nobody else has to do anything)")


def show(file: Path, /, *, output: Output = HUMAN) -> None:
    """Show a certificate's fingerprint and how long it is valid; given a key, check that the two fit.

    Parameters
    ----------
    file
        NAME.crt, your own or another's; or NAME.key.
    """
    from puma import fingerprint
    from puma.crypto import identity

    if file.name.endswith(".key"):
        facts = _facts(identity.load(file))
    else:
        shown = identity.read_certificate(file)
        expires = shown.not_valid_after_utc
        facts: dict[str, Any] = {"name": identity.common_name(shown), "certificate": str(file)}
        facts |= {"fingerprint": fingerprint.of_certificate(shown), "expires": f"{expires:%Y-%m-%d}"}
        facts |= {"expired": expires < datetime.now(UTC)}
    if output.json:
        ui.answer(facts)
        return
    ended = "; it has EXPIRED: run `puma keys renew` where the key is" if facts.get("expired") else ""
    ui.say(f"name         {facts['name']}")
    ui.say(f"valid until  {facts['expires']}{ended}")
    ui.say(f"fingerprint  {facts['fingerprint']}")


def _facts(found: Any) -> dict[str, Any]:
    facts = {"name": found.name, "key": str(found.key), "certificate": str(found.certificate)}
    return facts | {"fingerprint": found.fingerprint, "expires": f"{found.expires:%Y-%m-%d}", "expired": False}
