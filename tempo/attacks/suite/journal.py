"""What was found so far, on disk: a run that is cut short is not lost, and `--resume` goes on behind it.

attack.jsonl          a row to a line, as in the JSON, in the order of finding
pictures/N.npz        pictures of one attack on one recording
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, final

import numpy as np
import torch

from tempo.attacks.suite.rows import Picture, Result, Row
from tempo.attacks.suite.run import Watcher
from tempo.errors import DataError, OutsideError

LINES: Final = "attack.jsonl"
_PICTURES: Final = "pictures"
_ABOUT: Final = ("attack", "scheme", "reference", "title")


@final
class Journal(Watcher):
    """Passes on to `other`, and writes down what was found; without a folder it passes on alone.

    resume: rows of an earlier run are kept, but for those that were not measured for want of time or by a
    fault. Raises OutsideError where the folder cannot be written, DataError where it holds something else.
    """

    def __init__(self, other: Watcher, folder: Path | None, *, resume: bool) -> None:
        self._other, self._folder = other, folder
        self.rows: list[Row] = []
        self._old: list[Picture] = []
        if folder is None:
            return
        if resume and (folder / LINES).exists():
            self._read(folder)
        self._begin(folder)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """On an error everything stays, for `--resume`; else the report says it all."""
        if kind is None and self._folder is not None:
            self._clear(self._folder)

    def whole(self, new: Result) -> Result:
        """With what an earlier run had found, in the order of its subjects."""
        rows = [*self.rows, *new.rows]
        names = list(dict.fromkeys([*new.subjects, *(row.reference for row in rows)]))
        schemes = list(dict.fromkeys(row.scheme for row in rows))
        rows.sort(key=lambda row: (names.index(row.reference), schemes.index(row.scheme)))
        return Result(rows, [*self._old, *new.pictures], new.subjects, new.seconds)

    def say(self, text: str) -> None:
        self._other.say(text)

    def begin(self, runs: int) -> None:
        self._other.begin(runs)

    def running(self, what: str, limit_s: float = math.inf) -> None:
        self._other.running(what, limit_s)

    def done(self, rows: Sequence[Row], pictures: Sequence[Picture] = ()) -> None:
        self._other.done(rows, pictures)
        if self._folder is not None:
            self._write(self._folder, rows, pictures)

    def _write(self, folder: Path, rows: Sequence[Row], pictures: Sequence[Picture]) -> None:
        try:
            with (folder / LINES).open("a") as file:
                file.writelines(json.dumps(row.to_dict()) + "\n" for row in rows)
            if pictures:
                arrays: dict[str, Any] = {}
                for i, picture in enumerate(pictures):
                    arrays[f"about{i}"] = np.array([getattr(picture, name) for name in _ABOUT])
                    arrays[f"recovered{i}"] = picture.recovered.numpy()
                    arrays[f"true{i}"] = picture.true.numpy()
                number = len(list((folder / _PICTURES).iterdir()))
                np.savez(folder / _PICTURES / f"{number}.npz", **arrays)
        except OSError as error:
            raise OutsideError(f"--out {folder} cannot be written ({error.strerror})") from error

    def _begin(self, folder: Path) -> None:
        self._clear(folder)
        try:
            (folder / _PICTURES).mkdir(exist_ok=True)
        except OSError as error:
            raise OutsideError(f"--out {folder} cannot be written ({error.strerror})") from error
        old = {(row.attack, row.scheme, row.reference) for row in self.rows}
        self._old = [p for p in self._old if (p.attack, p.scheme, p.reference) in old]
        self._write(folder, self.rows, self._old)

    def _read(self, folder: Path) -> None:
        try:
            lines = (folder / LINES).read_text().splitlines()
            rows = [Row.from_dict(json.loads(line)) for line in lines]
            for path in sorted((folder / _PICTURES).glob("*.npz")):
                with np.load(path, allow_pickle=False) as arrays:
                    for i in range(len(arrays.files) // 3):
                        about = [str(text) for text in arrays[f"about{i}"]]
                        got, true = (torch.from_numpy(arrays[f"{side}{i}"]) for side in ("recovered", "true"))
                        self._old.append(Picture(*about, recovered=got, true=true))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{folder / LINES} holds no results of this version: leave --resume out, or name another "
                "folder"
            ) from error
        self.rows = [row for row in rows if not row.missed]

    def _clear(self, folder: Path) -> None:
        for path in [folder / LINES, *(folder / _PICTURES).glob("*.npz")]:
            path.unlink(missing_ok=True)
        if (folder / _PICTURES).is_dir():
            (folder / _PICTURES).rmdir()
