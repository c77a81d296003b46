"""Templates of deploy/ that no page runs here say what they must, and nothing that undoes it."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
from operations_sandbox import PROJECT

DEPLOY = PROJECT / "deploy"
VALUES = {
    "log_level": "error",
    "python": "/opt/tempo/bin/python3",
    "packages": "/opt/tempo",
    "script": "/opt/train.py",
    "data": "/srv/sealed",
    "arch_libdir": "/lib/x86_64-linux-gnu",
}


class Gramine:
    """What gramine-manifest hands to a template."""

    libos = "/usr/lib/x86_64-linux-gnu/gramine/libsysdb.so"

    def runtimedir(self, libc: str = "glibc") -> str:
        return f"/usr/lib/x86_64-linux-gnu/gramine/runtime/{libc}"


@pytest.fixture(scope="module", params=["0", "1"])
def manifest(request):
    jinja2 = pytest.importorskip("jinja2")
    text = (DEPLOY / "gramine" / "tempo.manifest.template").read_text()
    made = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(text)
    return tomllib.loads(made.render(gramine=Gramine(), env={"EDMM": request.param}, **VALUES))


def test_the_enclave_is_one(manifest):
    sgx = manifest["sgx"]
    assert sgx["debug"] is False
    assert sgx["remote_attestation"] == "dcap"
    assert not re.search("insecure|enable_stats|profile", str(manifest))


def test_the_host_gives_no_input_that_is_not_measured(manifest):
    loader = manifest["loader"]
    assert loader["argv"] == [VALUES["python"], "-I", VALUES["script"]]
    assert all(isinstance(value, str) for value in loader["env"].values())  # none is passed through
    assert manifest["sgx"]["allowed_files"] == [f"file:{VALUES['data']}/"]


def test_what_is_mounted_is_measured_but_for_the_sealed_files(manifest):
    measured = [uri.rstrip("/") for uri in manifest["sgx"]["trusted_files"]]
    for mount in manifest["fs"]["mounts"]:
        if mount.get("type") != "tmpfs" and mount["path"] != VALUES["data"]:
            assert mount["uri"] in measured, mount
    assert not any(uri.startswith(f"file:{VALUES['data']}") for uri in measured)


def test_the_first_boot_of_a_providers_machine_is_cloud_config():
    yaml = pytest.importorskip("yaml")
    text = (DEPLOY / "confidential-vm" / "cloud-init.yaml").read_text()
    assert text.startswith("#cloud-config\n")
    config = yaml.safe_load(text)
    assert config["swap"]["size"] == 0
    assert all(isinstance(word, str) for command in config["runcmd"] for word in command)
    modules = next(
        f["content"] for f in config["write_files"] if f["path"].endswith("modules-load.d/tempo.conf")
    )
    assert modules.split() == ["tsm", "sev-guest", "tdx-guest"]
    assert not re.search(r"PRIVATE|ssh_auth|passw", text)


def test_an_snp_machine_is_measured_with_what_it_is_started_with():
    script = (DEPLOY / "confidential-vm" / "launch-snp.sh").read_text()
    for said in ("kernel-hashes=on", "policy=0x30000"):
        assert said in script
    policy = int(re.search(r"policy=(0x[0-9a-f]+)", script)[1], 16)
    assert not policy & 1 << 19  # debugging
    assert not policy & 1 << 18  # a migration agent
    measured, started = script.split("fi\n\n# Policy")
    for part in ("$vcpus", "$cpu", "$image/ovmf.fd", "$image/kernel", "$image/initrd", "$append"):
        assert part in measured
        assert part in started


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sh")), ids=lambda path: path.name)
def test_scripts_stop_at_the_first_error(path):
    assert "set -euo pipefail" in path.read_text()
    assert path.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


@pytest.mark.parametrize("script", ["launch-snp.sh", "launch-tdx.sh"])
def test_an_image_that_is_not_whole_is_not_started(script, tmp_path):
    words = [str(DEPLOY / "confidential-vm" / script), "--dry-run"]
    assert subprocess.run(words, capture_output=True).returncode != 0
    done = subprocess.run([*words, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "ovmf.fd cannot be read" in done.stderr
