"""What measures the same that a plan predicts."""

from __future__ import annotations


def measuring(
    model: str, *, batch: int, scheme: str, inference: bool, wire: str = "fp32", arithmetic: str = "fp32"
) -> str:
    """A command. `tempo plan --measure` runs workers of one owner and refuses scheme shares, which takes
    three: there a session's own report has the times."""
    if scheme == "shares":
        return "session.report()"
    given = [
        f"--{name} {value}" for name, value in (("wire", wire), ("arithmetic", arithmetic)) if value != "fp32"
    ]
    options = " ".join([*(["--inference"] if inference else []), *given, "--measure"])
    return f"tempo plan {model} --batch {batch} --scheme {scheme} {options}"
