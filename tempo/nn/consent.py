"""What a user allows workers to see of each layer, and what is public anyway.

Asked once, before a module is wrapped: a layer of which more would be visible than allowed is refused by
name, and public weights under a scheme that they weaken make a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Final, final

from tempo.config import Config
from tempo.errors import PublicWeightsWarning, UnsupportedError, UsageError
from tempo.secrecy.visible import CODES, Layer, meaning, ordered, remedy, visible

#: Schemes of which public weights undo a part.
_WEAKENED: Final = ("mixing", "monomial")
_NAMED: Final = 4


@final
class Consent:
    """Of one call to protect. require: codes that may be visible (tempo/secrecy/visible.py), None for all.
    Raises UsageError for a code there is none of."""

    def __init__(self, config: Config, require: Iterable[str] | None) -> None:
        if isinstance(require, str):
            raise UsageError(f"require takes a set of codes, not one string: {{{require!r}}}")
        self._config = config
        self._allowed = None if require is None else frozenset(require)
        unknown = sorted((self._allowed or frozenset()) - set(CODES))
        if unknown:
            raise UsageError(f"require: there is no code {unknown[0]!r}. There are: {', '.join(CODES)}")

    def ask(self, sent: Iterable[str], public: Iterable[str]) -> None:
        """sent: names of the layers that may leave the TEE. Gradients may pass through all of them, frozen
        or not. public: of those whose weights are public knowledge. Raises UnsupportedError naming layer and
        code; warns."""
        scheme, known = self._config.scheme, set(public)
        exposed = []
        for name in sent:
            codes = visible(scheme, self._config, Layer(public=name in known))
            beyond = ordered(codes - self._allowed) if self._allowed is not None else ()
            if beyond:
                raise UnsupportedError(
                    f"layer {name!r} would show {beyond[0]!r} to workers under scheme {scheme}, which "
                    f"require does not allow: {meaning(beyond[0])}"
                    + (f" (beyond that: {', '.join(beyond[1:])})" if len(beyond) > 1 else ""),
                    f"{remedy(beyond[0])}, keep the layer in the TEE with protect(keep=[{name!r}]), or allow "
                    f"the code in require",
                )
            if name in known and scheme in _WEAKENED:
                exposed.append(repr(name))
        if exposed:
            more = f" and {len(exposed) - _NAMED} more" if len(exposed) > _NAMED else ""
            warnings.warn(
                f"public weights under scheme {scheme}: {', '.join(exposed[:_NAMED])}{more}. "
                f"{public_note(scheme)}",
                PublicWeightsWarning,
                stacklevel=4,
            )


def public_note(scheme: str) -> str:
    return (
        f"{scheme} leaks the strongest directions of the features to whoever knows the weights; scheme "
        f"'shares' does not (docs/secrecy.md)"
    )
