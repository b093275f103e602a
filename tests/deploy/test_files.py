"""What is deployed refers to what is there: services, volumes, and options that commands have."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

from puma.cli.commands.ask.gateway import gateway  # noqa: E402
from puma.cli.commands.operate.party import party  # noqa: E402
from puma.cli.commands.operate.share import share  # noqa: E402
from puma.models.checkpoint import load  # noqa: E402

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))


def compose() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def party_set() -> Any:
    return yaml.safe_load((DEPLOY / "kubernetes" / "party" / "statefulset.yaml").read_text())


def known(words: str, command: Any) -> None:
    """Every option in these words is one of the command's."""
    names = {name.rstrip("_").replace("_", "-") for name in inspect.signature(command).parameters}
    names |= {"as"} if "key" in names else set()
    found = set(re.findall(r"--([a-z-]+)", words))
    assert found and found <= names, found - names


def test_services_need_what_there_is() -> None:
    made = compose()
    services = made["services"]
    assert set(services) == {"keys", "p0", "p1", "p2", "share", "gateway"}
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        assert set(service.get("networks", ())) <= set(made["networks"]), name
        named = {volume.partition(":")[0] for volume in service.get("volumes", ()) if not volume.startswith(".")}
        assert named <= set(made["volumes"]), name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file(), name
    assert made["networks"]["parties"]["internal"] and services["gateway"]["ports"] == ["127.0.0.1:8000:8000"]
    assert [services[p]["command"] for p in ("p0", "p1", "p2")] == [["p0"], ["p1"], ["p2"]]


def test_options_are_those_of_the_commands() -> None:
    services = compose()["services"]
    known(" ".join(services["p0"]["entrypoint"]), party)
    known(" ".join(services["gateway"]["entrypoint"]), gateway)
    known(services["share"]["command"][0].partition("puma share")[2].partition("\n")[0], share)
    (container,) = party_set()["spec"]["template"]["spec"]["containers"]
    known(" ".join([*container["command"], *container["args"]]), party)
    text = (DEPLOY / "Containerfile").read_text()
    known(re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[0], party)


def shared(folder: Path, model: str) -> list[str]:
    """What the owner's service shares from a host that serves in `folder`, with a `puma` that only notes its words."""
    for name, does in (("puma", f'echo "$@" >> {folder}/words'), ("python", f'exec "{sys.executable}" "$@"')):
        (folder / name).write_text(f"#!/bin/sh\n{does}\n")
        (folder / name).chmod(0o755)
    service = compose()["services"]["share"]
    assert service["environment"]["PUMA_MODEL"] == "${PUMA_MODEL:-}"
    words = [word.replace("$$", "$").replace("/var/lib/puma", str(folder)) for word in service["command"]]
    settings = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PUMA_MODEL": model}
    subprocess.run([*service["entrypoint"], *words], env=settings, check=True, timeout=60)
    return (folder / "words").read_text().splitlines()


def test_the_owner_shares_the_named_model_or_the_embedded_one_once(tmp_path: Path) -> None:
    (line,) = shared(tmp_path, "")
    command, model, *_ = line.split()
    assert command == "share" and load(model, weights=False).folder == load(weights=False).folder
    assert shared(tmp_path, "") == [line]
    assert shared(tmp_path, "/models/other")[1:] == [line.replace(model, "/models/other")]


def composing() -> list[str]:
    """Docker's plugin, or the program that came before it; neither needs an engine to read a file."""
    docker, before = shutil.which("docker"), shutil.which("docker-compose")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    if before is None:
        pytest.skip("neither docker compose nor docker-compose is here")
    return [before]


def test_compose_itself_reads_the_file() -> None:
    words, text = composing(), (DEPLOY / "compose.yaml").read_text()
    if "compose" not in words:  # the older program does not know a project's name in its file
        text = text.replace("\nname: puma\n", "\n")
    done = subprocess.run(
        [*words, "-p", "puma", "--project-directory", str(DEPLOY), "-f", "-", "config"],
        input=text, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read = yaml.safe_load(done.stdout)["services"]
    assert set(read) == set(compose()["services"])
    assert read["share"]["depends_on"]["p2"]["condition"] == "service_healthy"


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_manifests_name_each_other(path: Path) -> None:
    made = yaml.safe_load(path.read_text())
    assert made["apiVersion"] and made["kind"]
    if made["kind"] == "Kustomization":
        for resource in made["resources"]:
            assert (path.parent / resource).exists(), resource


def test_the_overlay_is_built(tmp_path: Path) -> None:
    """By kubectl itself: what it makes is in the namespace, runs the image that the overlay names and finds its key."""
    kubectl = shutil.which("kubectl") or shutil.which("kustomize")
    if kubectl is None:
        pytest.skip("neither kubectl nor kustomize is here")
    shutil.copytree(DEPLOY / "kubernetes", tmp_path / "kubernetes")
    example = tmp_path / "kubernetes" / "example"
    for name in ("party.key", "party.crt", "cluster.toml"):
        (example / name).write_text(name)
    words = [kubectl, "kustomize"] if kubectl.endswith("kubectl") else [kubectl, "build"]
    done = subprocess.run([*words, str(example)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    made = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    assert set(made) == {"Namespace", "ConfigMap", "Secret", "Service", "StatefulSet", "NetworkPolicy"}
    assert {each["metadata"].get("namespace") for kind, each in made.items() if kind != "Namespace"} == {"puma"}
    pod = made["StatefulSet"]["spec"]["template"]["spec"]
    images = {container["image"] for container in (*pod["containers"], *pod["initContainers"])}
    assert images == {"registry.example.org/puma-party:1"}
    used = {volume.get("secret", volume.get("configMap", {})).get("secretName", "") for volume in pod["volumes"]}
    assert made["Secret"]["metadata"]["name"] in used and made["Secret"]["metadata"]["name"] != "puma-party-key"
    for kind in ("Service", "NetworkPolicy"):
        spec = made[kind]["spec"]
        chosen = spec["selector"] if kind == "Service" else spec["podSelector"]["matchLabels"]
        assert chosen.items() <= made["StatefulSet"]["spec"]["template"]["metadata"]["labels"].items()


def test_a_party_is_locked_up() -> None:
    pod = party_set()["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]} | {
        claim["metadata"]["name"] for claim in party_set()["spec"]["volumeClaimTemplates"]
    }
    for container in (*pod["initContainers"], *pod["containers"]):
        locked = container["securityContext"]
        assert locked["readOnlyRootFilesystem"] and not locked["allowPrivilegeEscalation"]
        assert locked["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    example = yaml.safe_load((DEPLOY / "kubernetes" / "example" / "kustomization.yaml").read_text())
    made = {each["name"] for key in ("secretGenerator", "configMapGenerator") for each in example[key]}
    used = {
        volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
        for volume in pod["volumes"]
    }
    assert made == used - {None}
