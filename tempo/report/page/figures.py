"""Figures as people read them: units, rounding, both languages."""

from __future__ import annotations

import math
from typing import Final

from tempo.report.page.text import Text

_BYTES: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_FLOPS: Final = ((1e15, "Pflop"), (1e12, "Tflop"), (1e9, "Gflop"), (1e6, "Mflop"))
NONE: Final = Text("not known", "不明")


def count(value: float | None) -> Text:
    return NONE if value is None or not math.isfinite(value) else Text.same(f"{value:,.0f}")


def percent(share: float | None, digits: int = 1) -> Text:
    """share: 1.0 is all of it. Nearly all is never shown as all, nearly nothing never as nothing."""
    if share is None or not math.isfinite(share):
        return NONE
    least = 10.0**-digits
    shown = round(100 * share, digits)
    if share > 0 and shown < least:
        return Text(f"under {least:g} %", f"{least:g} % 未満")
    if share < 1 and shown >= 100:
        return Text(f"over {100 - least:g} %", f"{100 - least:g} % 超")
    return Text.same(f"{shown:.{digits}f} %")


def share(value: float | None, digits: int = 2) -> Text:
    """Per cent with so many digits that count, however small."""
    return NONE if value is None or not math.isfinite(value) else Text.same(f"{100 * value:.{digits}g} %")


def seconds(value: float | None) -> Text:
    if value is None or not math.isfinite(value):
        return NONE
    if value >= 2 * 3600:
        return Text(f"{value / 3600:,.1f} hours", f"{value / 3600:,.1f} 時間")
    if value >= 120:
        return Text(f"{value / 60:,.1f} minutes", f"{value / 60:,.1f} 分")
    if value >= 1:
        return Text(f"{value:.1f} s", f"{value:.1f} 秒")
    if value >= 1e-3 or value == 0:
        return Text(f"{1e3 * value:.3g} ms", f"{1e3 * value:.3g} ミリ秒")
    return Text(f"{1e6 * value:.3g} µs", f"{1e6 * value:.3g} マイクロ秒")


def size(nbytes: float | None) -> Text:
    if nbytes is None or not math.isfinite(nbytes):
        return NONE
    for unit, name in _BYTES:
        if abs(nbytes) >= unit:
            return Text.same(f"{nbytes / unit:,.1f} {name}")
    return Text(f"{nbytes:.0f} bytes", f"{nbytes:.0f} バイト")


def flops(value: float) -> Text:
    for unit, name in _FLOPS:
        if value >= unit:
            return Text.same(f"{value / unit:,.1f} {name}")
    return Text.same(f"{value:,.0f} flop")


def figure(value: float | None, digits: int = 3) -> Text:
    """A plain number with so many digits that count."""
    return NONE if value is None or not math.isfinite(value) else Text.same(f"{value:.{digits}g}")


def fixed(value: float | None, digits: int = 3) -> str:
    """For tables; empty where there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def money(value: float | None, currency: str) -> Text:
    if value is None or not math.isfinite(value):
        return NONE
    shown = (
        f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.2f}" if abs(value) >= 0.1 else f"{value:.2g}"
    )
    return Text.same(f"{shown} {currency}")


def times(value: float | None) -> Text:
    if value is None or not math.isfinite(value):
        return NONE
    shown = f"{value:,.1f}" if value >= 10 else f"{value:.2f}"
    return Text(f"{shown} times", f"{shown} 倍")
