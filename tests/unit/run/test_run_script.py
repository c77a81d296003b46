"""A script runs as `python SCRIPT` runs it, and what it raises is shown without Tempo's frames."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tempo
from tempo.errors import OutsideError, UsageError
from tempo.run.script import run_script, traceback_of


def written(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text)
    return path


def test_it_is_main_with_its_own_arguments_and_folder(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'found'\n")
    script = written(
        tmp_path,
        "import json, sys, beside\nfrom pathlib import Path\n"
        "said = [__name__, __file__, sys.argv, sys.path[0], beside.WORD]\n"
        "Path(sys.argv[1]).write_text(json.dumps(said))\n",
    )
    argv, path = sys.argv[:], sys.path[:]
    out = tmp_path / "out"
    ended = run_script(script, [str(out), "--lr", "3"])
    sys.modules.pop("beside")
    assert (ended.code, ended.error) == (0, None)
    said = [str(script), str(out), "--lr", "3"]
    import json

    assert json.loads(out.read_text()) == ["__main__", str(script), said, str(tmp_path), "found"]
    assert (sys.argv, sys.path) == (argv, path)


@pytest.mark.parametrize(
    ("text", "code", "error", "said"),
    [
        ("pass", 0, None, ""),
        ("import sys; sys.exit()", 0, None, ""),
        ("import sys; sys.exit(7)", 7, None, ""),
        ("raise SystemExit('enough')", 1, None, "enough"),
        ("{}['a']", 1, KeyError, ""),
        ("raise KeyboardInterrupt", 130, KeyboardInterrupt, ""),
        ("import tempo; tempo.Session(scheme='magic')", 2, UsageError, ""),
        ("from tempo.errors import OutsideError\nraise OutsideError('gone')", 3, OutsideError, ""),
        ("def f(:", 1, SyntaxError, ""),
    ],
)
def test_how_it_ends(text: str, code: int, error: type | None, said: str, tmp_path: Path) -> None:
    ended = run_script(written(tmp_path, text + "\n"), [])
    assert (ended.code, ended.said) == (code, said)
    assert type(ended.error) is (error or type(None))
    assert "tempo/run" not in (traceback_of(ended.error) if ended.error else "")


def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no script"):
        run_script(tmp_path / "none.py", [])


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith(("File", "tempo."))]


def test_frames_of_the_script_and_of_libraries_stay(tmp_path: Path) -> None:
    script = written(
        tmp_path,
        "import tempo, torch\nfrom torch import nn\n"
        "def inner(session):\n    session.protect(nn.Linear(64, 64).bfloat16())\n"
        "with tempo.Session('cpu') as session:\n    inner(session)\n",
    )
    error = run_script(script, []).error
    shown = lines(traceback_of(error))
    assert [line.rpartition("in ")[2] for line in shown[:2]] == ["<module>", "inner"]
    assert len(shown) == 3
    assert shown[2].startswith("tempo.errors.UnsupportedError: weight of the model is bfloat16")


def test_what_led_to_an_error_is_shown_for_the_scripts_own_alone() -> None:
    def chained(outer: Exception) -> str:
        try:
            try:
                raise ValueError("the cause")
            except ValueError as cause:
                raise outer from cause
        except Exception as error:
            return traceback_of(error)

    assert "the cause" in chained(RuntimeError("own"))
    assert "the cause" not in chained(UsageError("ours"))


def test_frames_in_the_middle_go_too(tmp_path: Path) -> None:
    """A hook of the script's, called by a protected layer: Tempo is between the two."""

    def hook(*_: object) -> None:
        raise RuntimeError("in the hook")

    with tempo.Session("cpu") as session:
        layer = session.protect(nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)))
        layer[0].register_forward_hook(hook)
        with pytest.raises(RuntimeError) as caught:
            layer(torch.randn(64, 64))
    shown = traceback_of(caught.value)
    assert "in hook" in shown
    assert "/tempo/nn/" in "".join(str(f.path) for f in caught.traceback), "the test means something"
    assert "/tempo/nn/" not in shown


def test_groups_are_trimmed_within() -> None:
    try:
        tempo.Config(scheme="magic")
    except UsageError as one:
        group = ExceptionGroup("both", [one, ValueError("plain")])
    shown = traceback_of(group)
    assert "magic" in shown
    assert "plain" in shown
    assert "tempo/config.py" not in shown
