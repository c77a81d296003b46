"""Families of timm: its modules, each by its smallest member that is no test model."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from benchmarks.coverage.subject import SEED, NotRunnableError, Recipe
from benchmarks.coverage.torchvision_schemas import declare

#: Sides of square images, smallest first; None: what the model was made for.
_SIDES = (64, 96, 128, None)
_BATCH = 4
_CLASSES = 10


def families() -> list[str]:
    declare()
    import timm

    return sorted(timm.list_modules())


def recipe(family: str) -> Recipe:
    """Raises NotRunnableError where no member runs."""
    declare()
    import timm

    names = [name for name in timm.list_models(module=family) if not name.startswith("test_")]
    if not names:
        raise NotRunnableError("no registered member")
    refusals = []
    for name in _smallest(names)[:3]:
        for side in _SIDES:
            try:
                return _at(family, name, side)
            except Exception as error:
                refusals.append(f"{name} at {side}: {type(error).__name__}: {str(error)[:200]}")
    raise NotRunnableError("; ".join(refusals[:1] + refusals[-1:]))


#: Words of names, smallest first.
_WORDS = (
    "zepto",
    "atto",
    "femto",
    "pico",
    "nano",
    "xxs",
    "xxtiny",
    "xs",
    "xtiny",
    "tiny",
    "mini",
    "_t",
    "_s",
    "small",
)
_COUNTED = 4
#: A step in float64 with its encoded operands is to fit into a few gigabytes.
_MOST_PARAMETERS = 100_000_000


def _smallest(names: list[str]) -> list[str]:
    """By the number of parameters, counted on tensors without memory. Of large families those are counted
    whose names speak of the least. Raises NotRunnableError where all of them are too large."""
    import timm

    sizes = {}
    for name in sorted(names, key=_spoken)[:_COUNTED]:
        with suppress(Exception), torch.device("meta"):  # some cannot be built without data; others can
            model = timm.create_model(name, pretrained=False)
            sizes[name] = sum(p.numel() for p in model.parameters())
    if sizes and min(sizes.values()) > _MOST_PARAMETERS:
        raise NotRunnableError(f"{min(sizes.values()) / 1e6:.0f} M parameters in the smallest member")
    return sorted(sizes, key=sizes.__getitem__) or sorted(names, key=_spoken)


def _spoken(name: str) -> tuple[int, int, str]:
    """How small a name says that its model is."""
    word = next((i for i, w in enumerate(_WORDS) if w in name), len(_WORDS))
    numbers = [int(n) for n in re.findall(r"\d+", name)]
    return word, numbers[0] if numbers else 0, name


def _at(family: str, name: str, side: int | None) -> Recipe:
    import timm

    options: dict[str, Any] = {"pretrained": False, "num_classes": _CLASSES}
    torch.manual_seed(SEED)
    sized = False
    if side is not None:
        try:
            model = timm.create_model(name, img_size=side, **options)
            options["img_size"], sized = side, True
        except TypeError:  # a model for images of any size
            model = timm.create_model(name, **options)
    else:
        model = timm.create_model(name, **options)
    config: dict[str, Any] = model.default_cfg
    channels, height, width = config["input_size"]
    if side is None:
        shape = (channels, height, width)
    elif not sized and config.get("fixed_input_size") and height != side:
        raise NotRunnableError("takes images of one size")
    else:
        shape = (channels, side, side)
    batch = _BATCH if side is not None and side <= 96 else 2
    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(SEED))
    with torch.no_grad():
        model.eval()(images[:1])
    return Recipe("timm", family, name, _maker(name, options), {"x": images}, {"side": shape[-1]})


def _maker(name: str, options: dict[str, Any]) -> Any:
    import timm

    def make() -> nn.Module:
        model: nn.Module = timm.create_model(name, **options)
        return _Positional(model)

    return make


class _Positional(nn.Module):
    """Its input by name, whatever the model calls it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        return self.model(x)
