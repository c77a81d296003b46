"""What is deployed fits the schemas of what it is given to, and runs commands that exist."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import tempo.cli as cli

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = ["worker.yaml", "master.yaml"]


def documents(name):
    yaml = pytest.importorskip("yaml")
    return [each for each in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text()) if each]


def check_command(words):
    """The verb and its options exist; what is given for each is not tried."""
    group = typer.main.get_command(cli.app)
    command = group.commands[words.pop(0)]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {option for p in command.params for option in p.opts}
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert given or command.name == "run"
    assert [option for option in given if option not in known] == []


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_fit_the_schemas_of_the_api(name):
    validate = pytest.importorskip("kubernetes_validate")
    for document in documents(name):
        validate.validate(document, "1.30", strict=True)


def test_a_manifest_that_does_not_fit_is_found():
    validate = pytest.importorskip("kubernetes_validate")
    document = documents("worker.yaml")[0]
    document["spec"]["replica"] = 2
    with pytest.raises(validate.ValidationError):
        validate.validate(document, "1.30", strict=True)


def containers():
    for name in MANIFESTS:
        for document in documents(name):
            template = document.get("spec", {}).get("template")
            if template:
                yield name, template["spec"]


@pytest.mark.security
def test_pods_are_as_little_privileged_as_they_can_be():
    pytest.importorskip("yaml")
    found = list(containers())
    assert len(found) == 2
    for _, spec in found:
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            rules = container["securityContext"]
            assert rules["allowPrivilegeEscalation"] is False
            assert rules["readOnlyRootFilesystem"] is True
            assert rules["capabilities"]["drop"] == ["ALL"]
            assert container["resources"]["limits"]["memory"]
            assert "unsafe" not in " ".join(container["args"])


@pytest.mark.security
def test_nobody_reaches_the_master_and_workers_reach_nobody():
    pytest.importorskip("yaml")
    rules = {
        document["metadata"]["name"]: document["spec"]
        for name in MANIFESTS
        for document in documents(name)
        if document["kind"] == "NetworkPolicy"
    }
    assert rules["tempo-master"]["ingress"] == []
    assert rules["tempo-worker"]["egress"] == []
    for rule in rules.values():
        assert rule["policyTypes"] == ["Ingress", "Egress"]


def test_pods_run_commands_that_exist():
    pytest.importorskip("yaml")
    for _, spec in containers():
        for container in spec["containers"]:
            if container["args"][0] != "run" or "run" in typer.main.get_command(cli.app).commands:
                check_command(list(container["args"]))


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_units_run_commands_that_exist(path):
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("ExecStart=")]
    program, *words = shlex.split(line.removeprefix("ExecStart="))
    assert program.endswith("/tempo")
    check_command(words)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_units_are_what_systemd_reads(path, tmp_path):
    """With a program that exists in the place of ours, which does not on this machine."""
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/tempo/bin/tempo", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    ours = [line for line in done.stderr.splitlines() if path.name in line]
    assert (done.returncode, ours) == (0, []), done.stderr
