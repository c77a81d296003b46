"""The guide of every verb. A test parses each command here as the command line would."""

from __future__ import annotations

from typing import Final

from tempo.cli.guide import Guide
from tempo.cli.guides_trust import TRUST

_BASH: Final = "~/.local/share/bash-completion/completions/tempo"
_GPU_CERTS: Final = "--cert gpu-a.pem --key gpu-a.key --ca ca.pem"


def epilog(verb: str) -> str:
    return _GUIDES[verb].text()


_GUIDES: Final = TRUST | {
    "": Guide(
        (
            ("tempo demo --fast", "train a small model plainly and on two workers, one of which lies"),
            ("tempo plan mlp:4096x4", "what would be sent, how long a step takes, what it costs"),
            ("tempo attack --reference mlp --fast", "what workers could learn"),
            ("tempo report demo-results", "one page of a run"),
        ),
        "tempo VERB --help",
        "quickstart.md",
    ),
    "attack": Guide(
        (
            ("tempo attack --fast", "everything within a quarter of an hour"),
            ("tempo attack --reference mlp --fast --scheme mixing", "the quickest look at one scheme"),
            ("tempo attack --only sinkhorn --scheme mixing:block=4,rounds=1", "with a knob turned down"),
            (
                "tempo attack --script train.py:subject --scheme mixing --require holds --out found",
                "your own model; exit 1 where a verdict is worse",
            ),
            (
                "tempo attack --transcript recording --scheme mixing --out found",
                "what a worker recorded before",
            ),
        ),
        "tempo report run.json --attack found",
        "secrecy.md",
    ),
    "bench": Guide(
        (
            ("tempo bench kernels --fast", "the passes of the master against copies, in a minute or two"),
            ("tempo bench layers --out bench --trace step.png", "layers, with the timeline of one step"),
            ("tempo bench chaos --minutes 10", "does training survive workers that fail and lie?"),
        ),
        "tempo report run.json --bench bench",
        "bench.md",
    ),
    "completion": Guide(
        (
            (f"tempo completion bash > {_BASH}", "for bash with bash-completion, from the next shell on"),
            ("tempo completion zsh > ~/.tempo.zsh", "for zsh: then `source ~/.tempo.zsh` in ~/.zshrc"),
            ("tempo completion fish > ~/.config/fish/completions/tempo.fish", "for fish"),
        ),
        None,
        "cli.md",
    ),
    "demo": Guide(
        (
            ("tempo demo --fast", "the short form: about a minute on two quiet cores"),
            ("tempo demo --scheme monomial --workers 3", "the paper's mask, on three workers"),
            ("tempo demo --owner --unsafe-simulator", "vault, attested master and audit log, without a TPM"),
        ),
        "tempo report demo-results",
        "quickstart.md",
    ),
    "doctor": Guide(
        (
            ("tempo doctor", "this machine, and tempo.toml if there is one"),
            ("tempo doctor --workers local:2", "and two workers, measured"),
            (
                "tempo doctor --workers gpu-a.example:7443 --cert master.pem --key master.key --ca ca.pem",
                "and a rented one",
            ),
        ),
        "tempo plan mlp:4096x4",
        "run.md",
    ),
    "plan": Guide(
        (
            ("tempo plan mlp:4096x4", "a built-in model, on two local workers"),
            ("tempo plan train.py:build --batch 256", "your own: build() returns a model and example inputs"),
            (
                "tempo plan train.py:build --samples 6000 --tee-per-hour 2 --gpu-per-hour 1 --page plan.html",
                "with the price of an epoch, as a page",
            ),
            ("tempo plan resnet50 --measure --save figures.json", "prediction beside real steps"),
        ),
        "tempo attack --script train.py:subject --fast --scheme mixing",
        "plan.md",
    ),
    "report": Guide(
        (
            ("tempo report demo-results", "after tempo demo"),
            ("tempo report run.json --attack found --log log --key log.pub --lang ja", "with all there is"),
            ("tempo report plan.json --out plan.html", "the page of a plan"),
        ),
        "tempo attack --script train.py:subject --fast --scheme mixing --out found",
        "report.md",
    ),
    "run": Guide(
        (
            ("tempo run train.py", "with the settings of tempo.toml"),
            (
                "tempo run --config production.toml train.py --epochs 3",
                "other settings, and the script's own option",
            ),
        ),
        "tempo report run.json",
        "run.md",
    ),
    "worker": Guide(
        (
            (
                f"tempo worker --listen 0.0.0.0:7443 --device cuda:0 {_GPU_CERTS}",
                "on the GPU machine",
            ),
            ("tempo worker ca pki", "a development authority for such certificates"),
        ),
        "tempo doctor --workers gpu-a.example:7443 --cert master.pem --key master.key --ca ca.pem",
        "operations.md",
    ),
    "worker ca": Guide(
        (("tempo worker ca pki", "ca.pem for every side; ca.key stays with you"),),
        "tempo worker issue pki --name gpu-a --role worker --host gpu-a.example",
        "operations.md",
    ),
    "worker issue": Guide(
        (
            ("tempo worker issue pki --name gpu-a --role worker --host gpu-a.example", "for a worker"),
            ("tempo worker issue pki --name master --role master", "for the master"),
        ),
        "tempo worker --listen 0.0.0.0:7443 --cert gpu-a.pem --key gpu-a.key --ca ca.pem",
        "operations.md",
    ),
    "worker revoke": Guide(
        (
            ("tempo worker revoke pki gpu-a", "all certificates of that name"),
            ("tempo worker revoke pki", "sign the list anew, in time"),
        ),
        None,
        "operations/compromised-worker.md",
    ),
}
