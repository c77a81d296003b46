"""Models to plan for: the user's own by name, and some well-known shapes with random weights."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from tempo.errors import OutsideError, UsageError

Made = tuple[nn.Module, Any]

_MLP: Final = re.compile(r"mlp:([1-9][0-9]{0,5})x([1-9][0-9]{0,2})")
#: What follows is no name in a module called mlp either.
_NOT_MLP: Final = re.compile(r"mlp:(?![A-Za-z_]).*")
_TOKENS: Final = 1024
_FORMS: Final = (
    "expected module:factory, script.py:factory (a callable that returns a module and its example inputs), "
    "mlp:WIDTHxDEPTH, resnet50, vit-b16 or gpt2"
)


def load(name: str, batch: int | None) -> tuple[nn.Module, Any, int]:
    """The model, example inputs with `batch` samples, and how many samples those are.

    Raises UsageError for a name that means nothing or a factory that does not do what it should,
    OutsideError for a script that cannot be read.
    """
    match = _MLP.fullmatch(name)
    if match:
        made = _mlp(int(match[1]), int(match[2]), batch or 4096)
    elif _NOT_MLP.fullmatch(name):
        raise UsageError(
            f"{name!r} names no model: expected mlp:WIDTHxDEPTH with a width from 1 to 999999 and a depth "
            "from 1 to 999, such as mlp:1024x3"
        )
    elif name in _KNOWN:
        made = _KNOWN[name](batch or 32)
    elif ":" in name:
        made = _called(name, batch)
    else:
        raise UsageError(f"{name!r} names no model: {_FORMS}")
    model, inputs = made
    sizes = {t.shape[0] for t in _tensors(inputs) if t.ndim}
    if batch is not None and len(sizes) == 1 and sizes != {batch}:
        inputs, sizes = _resized(inputs, batch), {batch}
    if batch is not None and sizes != {batch}:
        raise UsageError(
            "--batch: the example inputs have no common first dimension to change; let the factory take a "
            "parameter named batch"
        )
    return model, inputs, max(sizes, default=1)


def named(name: str, forms: str = _FORMS) -> Callable[..., Any]:
    """The callable that module:name or script.py:name stands for. forms: what was expected, for errors.

    Raises UsageError where there is none, OutsideError for a script that cannot be read.
    """
    source, _, attribute = name.rpartition(":")
    module = _script(Path(source)) if source.endswith(".py") else _module(source, forms)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise UsageError(f"{source} has no callable {attribute!r}: {forms}")
    factory: Callable[..., Any] = found
    return factory


def _called(name: str, batch: int | None) -> Made:
    factory = named(name)
    takes_batch = "batch" in inspect.signature(factory).parameters
    made = factory(batch=batch) if takes_batch and batch is not None else factory()
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module)):
        raise UsageError(f"{name} returned {type(made).__name__}; expected (torch.nn.Module, example inputs)")
    return made


def _script(path: Path) -> Any:
    if not path.is_file():
        raise OutsideError(f"there is no script {path}")
    spec = importlib.util.spec_from_file_location(f"tempo_plan_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise OutsideError(f"{path} cannot be loaded as a Python script")
    module = importlib.util.module_from_spec(spec)
    with _importable(path.resolve().parent):
        spec.loader.exec_module(module)
    return module


def _module(name: str, forms: str) -> Any:
    try:
        with _importable(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(f"no module named {error.name!r}: {forms}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Modules beside the user's script are found, as when it is run."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))


def _tensors(inputs: Any) -> list[Tensor]:
    if isinstance(inputs, Tensor):
        return [inputs]
    values = (
        inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple | list) else ()
    )
    return [t for value in values for t in _tensors(value)]


def _resized(inputs: Any, batch: int) -> Any:
    """Samples repeated, or left out, until there are `batch`."""
    if isinstance(inputs, Tensor):
        return inputs[torch.arange(batch) % inputs.shape[0]] if inputs.ndim else inputs
    if isinstance(inputs, dict):
        return {name: _resized(value, batch) for name, value in inputs.items()}
    return type(inputs)(_resized(v, batch) for v in inputs) if type(inputs) in (tuple, list) else inputs


# ---- well-known shapes -------------------------------------------------------------------------------


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _noise(*shape: int) -> Tensor:
    """Inputs that differ from row to row: alike rows stay in the TEE (setting repeats)."""
    return torch.randn(shape, generator=_generator())


def _mlp(width: int, depth: int, batch: int) -> Made:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(width, width)), _noise(batch, width)


def _transformers(name: str) -> Any:
    # Shapes only: nothing is fetched.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError(f"the example {name} needs transformers: pip install transformers") from error


def _resnet50(batch: int) -> Made:
    hf = _transformers("resnet50")
    model = hf.ResNetForImageClassification(hf.ResNetConfig(num_labels=1000))
    return model, {"pixel_values": _noise(batch, 3, 224, 224)}


def _vit_b16(batch: int) -> Made:
    hf = _transformers("vit-b16")
    return hf.ViTForImageClassification(hf.ViTConfig(num_labels=1000)), {
        "pixel_values": _noise(batch, 3, 224, 224)
    }


def _gpt2(batch: int) -> Made:
    hf = _transformers("gpt2")
    model = hf.GPT2LMHeadModel(hf.GPT2Config(use_cache=False))
    tokens = torch.randint(0, model.config.vocab_size, (batch, _TOKENS), generator=_generator())
    return model, {"input_ids": tokens}


_KNOWN: Final[dict[str, Callable[[int], Made]]] = {
    "resnet50": _resnet50,
    "vit-b16": _vit_b16,
    "gpt2": _gpt2,
}
