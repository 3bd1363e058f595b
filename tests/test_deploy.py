"""What deploy/ says is what the program does: settings, times and paths. Files that nobody runs grow stale."""

from __future__ import annotations

import configparser
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices

from agent.app.processes.parent import LAST_S, WORKER_S
from agent.core.settings import Settings
from agent.local.process import KILL_S, STOP_S
from agent.store.embedded_postgres.cluster import STOP_S as POSTGRES_STOP_S

DEPLOY = Path(__file__).parent.parent / "deploy"
AFTER_DRAIN_S = LAST_S + WORKER_S + STOP_S + KILL_S + POSTGRES_STOP_S
"""How long after AGENT_DRAIN_S a server may take at the most."""


def unit() -> configparser.ConfigParser:
    """The systemd unit; of what stands there more than once, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    parser.read(DEPLOY / "call-agent.service")
    return parser


def manifests() -> dict[str, dict[str, Any]]:
    """The Kubernetes manifests by kind; of the services the first."""
    documents = list(importlib.import_module("yaml").safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    return {document["kind"]: document for document in reversed(documents)}


def container() -> dict[str, Any]:
    [found] = manifests()["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def environment() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container()["env"]}


@pytest.mark.parametrize("name", sorted(path.name for path in DEPLOY.iterdir()))
def test_only_settings_that_there_are_and_says_what_was_checked(name: str) -> None:
    text = (DEPLOY / name).read_text()
    aliases = [field.validation_alias for field in Settings.model_fields.values()]
    known = {choice for alias in aliases if isinstance(alias, AliasChoices) for choice in alias.choices}
    assert set(re.findall(r"\b(?:AGENT|OPENAI)_[A-Z_]*[A-Z]\b", text)) <= known
    assert "# Checked: " in text
    assert "Not checked: " in text


def test_systemd_waits_until_a_server_must_have_ended() -> None:
    drain_s = float(
        re.findall(
            r"^Environment=AGENT_DRAIN_S=(\d+)$", (DEPLOY / "call-agent.service").read_text(), re.MULTILINE
        )[0]
    )
    service = unit()["Service"]
    assert float(service["TimeoutStopSec"]) >= drain_s + AFTER_DRAIN_S
    assert service["KillMode"] == "mixed", "children are asked by their parent, and killed when the time is up"
    assert "-HUP $MAINPID" in service["ExecReload"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "call-agent.service").read_text()
    here = text.replace("/opt/call-agent/.venv/bin/call-agent", _without_spaces(sys.executable))
    assert here != text
    (tmp_path / "call-agent.service").write_text(here)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "call-agent.service")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def _without_spaces(path: str) -> str:
    """A path as a unit quotes it: systemd divides commands at spaces."""
    return path.replace(" ", r"\x20")


def test_a_pod_has_time_for_its_longest_call() -> None:
    pod = manifests()["StatefulSet"]["spec"]["template"]["spec"]
    pause_s = float(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    drain_s = float(environment()["AGENT_DRAIN_S"])
    assert drain_s >= float(environment()["AGENT_MAX_CALL_S"])
    assert pod["terminationGracePeriodSeconds"] >= pause_s + drain_s + AFTER_DRAIN_S


def test_probes_services_and_autoscaler_name_what_is_there() -> None:
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {
        "http": Settings.model_fields["port"].default,
        "metrics": int(environment()["AGENT_ADMIN_PORT"]),
    }
    probes = {kind: container()[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert (probes["readiness"]["path"], probes["liveness"]["path"]) == ("/readyz", "/healthz")
    [metric] = manifests()["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "agent_active_calls"
    labels = manifests()["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert manifests()["Service"]["spec"]["selector"] == labels


def test_pods_run_as_the_user_of_the_image() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    context = manifests()["StatefulSet"]["spec"]["template"]["spec"]["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in text
    for copied in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE):
        assert all((DEPLOY.parent / name).exists() for name in copied.split())
