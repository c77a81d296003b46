"""What measures the same that a plan predicts."""

from __future__ import annotations


def measuring(model: str, *, batch: int, scheme: str, inference: bool) -> str:
    """A command. `tempo plan --measure` runs workers of one owner and refuses scheme shares, which takes
    three: there a session's own report has the times."""
    if scheme == "shares":
        return "session.report()"
    request = " --inference" if inference else ""
    return f"tempo plan {model} --batch {batch} --scheme {scheme}{request} --measure"
