"""`tempo seal` and `tempo unseal`: every kind of source comes back as it was."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import tempo.cli as cli
from tempo.data import SealedDataset
from tempo.trust.sealed import DataKey, OwnerKey

pytestmark = pytest.mark.security


def make_images(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (root / "images" / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).save(
                root / "images" / label / f"{i}.png"
            )
    return root / "images"


def make_files(root: Path) -> Path:
    (root / "files" / "deep" / "er").mkdir(parents=True)
    (root / "files" / "a.txt").write_text("a")
    (root / "files" / "deep" / "er" / "b.bin").write_bytes(bytes(100_000))
    return root / "files"


def make_npz(root: Path) -> Path:
    np.savez(root / "a.npz", x=np.arange(12.0).reshape(4, 3), y=np.arange(4, dtype=">i4"))
    return root / "a.npz"


def make_csv(root: Path) -> Path:
    (root / "t.csv").write_text('age,name,weight,code\n30,"Mori, Y.",61.5,007\n41,Sato,70,1_0\n')
    return root / "t.csv"


def make_safetensors(root: Path) -> Path:
    tensors = {"w": torch.randn(3, 4), "b": torch.randn(3).bfloat16(), "n": torch.tensor(7)}
    save_file(tensors, root / "m.safetensors")
    return root / "m.safetensors"


def same(a: Path, b: Path) -> bool:
    if a.is_dir():
        names = sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file())
        assert names == sorted(p.relative_to(b) for p in b.rglob("*") if p.is_file())
        return all((a / n).read_bytes() == (b / n).read_bytes() for n in names)
    if a.suffix == ".npz":
        with np.load(a) as one, np.load(b) as two:
            return one.files == two.files and all(np.array_equal(one[n], two[n]) for n in one.files)
    if a.suffix == ".csv":

        def numbers(path: Path) -> list[list[str]]:
            with path.open(newline="") as file:
                return [[c.removesuffix(".0") for c in row] for row in csv.reader(file)]

        return numbers(a) == numbers(b)
    one, two = load_file(a), load_file(b)
    return one.keys() == two.keys() and all(
        torch.equal(one[n], two[n]) and one[n].dtype == two[n].dtype for n in one
    )


@pytest.mark.parametrize("make", [make_images, make_files, make_npz, make_csv, make_safetensors])
def test_there_and_back(make, tmp_path: Path, capsys) -> None:
    source = make(tmp_path)
    sealed, key = tmp_path / "sealed.tempo", tmp_path / "key"
    assert cli.run(["seal", str(source), str(sealed), "--key", str(key), "--create-key", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["rows"][0]
    assert set(row) == {"out", "kind", "records", "bytes", "key", "sequence"}
    out = tmp_path / f"out{source.suffix}"
    assert cli.run(["unseal", str(sealed), str(out), "--key", str(key)]) == 0
    assert same(source, out)


def test_images_are_a_data_set_with_classes(tmp_path: Path) -> None:
    source = make_images(tmp_path)
    cli.run(["seal", str(source), str(tmp_path / "s"), "--key", str(tmp_path / "k"), "--create-key"])
    data = SealedDataset(tmp_path / "s", DataKey.load(tmp_path / "k"))
    assert data.classes == ("cat", "dog")
    image, label = data[4]
    assert (tuple(image.shape), image.dtype, label) == ((3, 5, 6), torch.uint8, 1)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(source / "dog" / "1.png")))


def test_a_model_for_the_owner(tmp_path: Path) -> None:
    """The machine that seals holds no key that opens."""
    owner = OwnerKey.generate()
    owner.save(tmp_path / "private")
    owner.recipient.save(tmp_path / "public")
    source = make_safetensors(tmp_path)
    assert cli.run(["seal", str(source), str(tmp_path / "s"), "--key", str(tmp_path / "public")]) == 0
    assert (
        cli.run(["unseal", str(tmp_path / "s"), str(tmp_path / "o"), "--key", str(tmp_path / "public")]) == 2
    )
    assert (
        cli.run(["unseal", str(tmp_path / "s"), str(tmp_path / "o"), "--key", str(tmp_path / "private")]) == 0
    )


def test_an_altered_file_is_exit_code_1_and_leaves_nothing(tmp_path: Path, capsys) -> None:
    source = make_files(tmp_path)
    sealed, key, out = tmp_path / "s", tmp_path / "k", tmp_path / "out"
    cli.run(["seal", str(source), str(sealed), "--key", str(key), "--create-key"])
    data = bytearray(sealed.read_bytes())
    data[200] ^= 1
    sealed.write_bytes(data)
    before = sorted(tmp_path.iterdir())
    capsys.readouterr()
    assert cli.run(["unseal", str(sealed), str(out), "--key", str(key)]) == 1
    assert "altered" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_rolled_back_and_exchanged(tmp_path: Path) -> None:
    source = make_npz(tmp_path)
    seal = ["seal", str(source), str(tmp_path / "s"), "--key", str(tmp_path / "k"), "--create-key"]
    assert cli.run([*seal, "--name", "model", "--sequence", "4"]) == 0
    unseal = ["unseal", str(tmp_path / "s"), str(tmp_path / "o"), "--key", str(tmp_path / "k")]
    assert cli.run([*unseal, "--at-least", "5"]) == 1
    assert cli.run([*unseal, "--name", "other"]) == 1
    assert cli.run([*unseal, "--name", "model", "--at-least", "4"]) == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["seal", "none", "OUT", "--key", "K", "--create-key"], 3),
        (["seal", "SRC", "OUT", "--key", "none"], 2),
        (["seal", "SRC", "SRC", "--key", "K", "--create-key"], 2),
        (["seal", "BAD.csv", "OUT", "--key", "K", "--create-key"], 2),
        (["seal", "BAD.npz", "OUT", "--key", "K", "--create-key"], 3),
        (["unseal", "SRC", "OUT", "--key", "none"], 2),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, code) -> None:
    (tmp_path / "BAD.csv").write_text("a,b\n1\n")
    (tmp_path / "BAD.npz").write_text("no archive")
    source = make_files(tmp_path)
    before = sorted(tmp_path.iterdir())
    names = {"SRC": str(source), "OUT": str(tmp_path / "out"), "K": str(tmp_path / "k")}
    names |= {n: str(tmp_path / n) for n in ("BAD.csv", "BAD.npz")}
    assert cli.run([names.get(a, a) for a in arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len([line for line in printed.err.splitlines() if line.strip()]) == 1
    assert sorted(tmp_path.iterdir()) == before
