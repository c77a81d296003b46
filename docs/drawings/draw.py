"""The drawings of the guides: `python docs/drawings/draw.py` writes them beside this file.

A test holds the files against what this makes, so that a drawing is changed here or not at all.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

INK, SOFT, LINE = "#1c2733", "#5b6875", "#8a97a5"
TRUSTED, UNTRUSTED, PAPER = "#e3f1e7", "#fbe9e4", "#ffffff"
GREEN, RED, BLUE = "#2f7d4f", "#b1452c", "#2b5f9e"


class Sheet:
    """An SVG of a given size in pixels, with what a screen reader is to say of it."""

    def __init__(self, width: int, height: int, title: str, text: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
            f'aria-labelledby="t d" font-family="system-ui, sans-serif" font-size="14">',
            f'<title id="t">{escape(title)}</title><desc id="d">{escape(text)}</desc>',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0 8 4 0 8z" fill="{SOFT}"/></marker></defs>',
            f'<rect width="{width}" height="{height}" rx="10" fill="{PAPER}"/>',
        ]

    def area(self, x: int, y: int, w: int, h: int, fill: str, name: str, colour: str) -> None:
        """A part of the world, with its name at the top."""
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="10" fill="{fill}" stroke="{colour}" '
            'stroke-dasharray="5 4"/>'
        )
        self.text(x + 14, y + 24, name, colour=colour, weight=600, anchor="start")

    def box(self, x: int, y: int, w: int, h: int, *lines: str, colour: str = LINE) -> None:
        """The first line is the name of what is in it."""
        self._parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{PAPER}" stroke="{colour}" '
            'stroke-width="1.5"/>'
        )
        top = y + h / 2 - 9 * (len(lines) - 1) + 5
        for number, line in enumerate(lines):
            self.text(
                x + w // 2, round(top + 18 * number), line, weight=400 if number else 600,
                colour=SOFT if number else INK, size=13 if number else 14,
            )  # fmt: skip

    def text(
        self, x: int, y: int, words: str, *, colour: str = INK, weight: int = 400, size: int = 14,
        anchor: str = "middle",
    ) -> None:  # fmt: skip
        self._parts.append(
            f'<text x="{x}" y="{y}" fill="{colour}" font-weight="{weight}" font-size="{size}" '
            f'text-anchor="{anchor}">{escape(words)}</text>'
        )

    def arrow(self, x: int, y: int, to_x: int, to_y: int, *, both: bool = False, colour: str = SOFT) -> None:
        start = ' marker-start="url(#tip)"' if both else ""
        self._parts.append(
            f'<line x1="{x}" y1="{y}" x2="{to_x}" y2="{to_y}" stroke="{colour}" stroke-width="1.8" '
            f'marker-end="url(#tip)"{start}/>'
        )

    @property
    def svg(self) -> str:
        return "\n".join([*self._parts, "</svg>", ""])


def parties() -> Sheet:
    sheet = Sheet(
        900, 400, "Who is where",
        "In-house: the vault with keys, policy and audit log. In a rented confidential machine: the "
        "master with data, labels, model and optimizer. Untrusted: GPU workers, which see operands in a "
        "secret basis only.",
    )  # fmt: skip
    sheet.area(20, 20, 210, 360, TRUSTED, "in your building", GREEN)
    sheet.box(40, 60, 170, 84, "vault", "data keys", "signed policy")
    sheet.box(40, 170, 170, 66, "owner's key", "opens the results")
    sheet.box(40, 262, 170, 66, "audit log", "checked offline")
    sheet.area(310, 20, 240, 360, TRUSTED, "rented TEE: the master", GREEN)
    sheet.box(330, 60, 200, 84, "data, labels, model,", "optimizer, metrics")
    sheet.box(330, 170, 200, 66, "secret bases", "fresh for every operation")
    sheet.box(330, 262, 200, 84, "check, decode", "or raise: nothing unverified", "touches the model")
    sheet.area(670, 20, 210, 360, UNTRUSTED, "rented GPUs: untrusted", RED)
    for number in range(3):
        words = f"worker {number + 1}", "products of matrices", "nothing else"
        sheet.box(690, 60 + 105 * number, 170, 80, *words)
    sheet.arrow(210, 96, 330, 96)
    sheet.text(270, 74, "keys, to the", size=12, colour=SOFT)
    sheet.text(270, 88, "attested one", size=12, colour=SOFT)
    sheet.arrow(330, 296, 210, 296)
    sheet.text(270, 288, "events", size=12, colour=SOFT)
    sheet.arrow(330, 204, 210, 204)
    sheet.text(270, 196, "sealed model", size=12, colour=SOFT)
    for number in range(3):
        sheet.arrow(530, 204, 690, 100 + 105 * number, both=True)
    sheet.text(610, 66, "images under", size=12, colour=SOFT)
    sheet.text(610, 80, "secret bases", size=12, colour=SOFT)
    return sheet


def flow() -> Sheet:
    sheet = Sheet(
        860, 190, "One operation",
        "A layer is lowered to a product; the scheme seals its operands; the fleet runs the product at "
        "workers; the verifier checks the reply or raises; the scheme opens it. Only running is untrusted.",
    )  # fmt: skip
    names = ("product", "seal", "run", "check", "open")
    checked = "probe by probe,", "or raise"
    lines = ("a layer, lowered", "Y = X Wᵀ"), ("into secret bases",), ("at the workers",), checked, ("to Y",)
    for number, (name, words) in enumerate(zip(names, lines, strict=True)):
        colour = RED if name == "run" else GREEN
        sheet.box(20 + 168 * number, 50, 146, 90, name, *words, colour=colour)
        if number:
            sheet.arrow(20 + 168 * number - 22, 95, 20 + 168 * number - 2, 95)
    sheet.text(20, 30, "green: inside the master      red: outside, assumed hostile", size=12, colour=SOFT,
               anchor="start")  # fmt: skip
    sheet.text(430, 172, "engine.py is the one place where these stand, in this order", size=12, colour=SOFT)
    return sheet


def shift() -> Sheet:
    sheet = Sheet(
        860, 360, "The key shift: three encodings a step, not six",
        "The master encodes X under bases A and B, and W under C and the dual of B. The worker keeps both "
        "and returns Y. In backward the master encodes dY alone, under the duals of A and C. From what it "
        "kept the worker computes dX and dW.",
    )  # fmt: skip
    sheet.text(120, 34, "encoded by the master", weight=600, colour=GREEN)
    sheet.text(430, 34, "multiplied by a worker", weight=600, colour=RED)
    sheet.text(740, 34, "decoded by the master", weight=600, colour=GREEN)
    sent = (54, "X", "A on rows, B on in-features"), (122, "W", "C on out-, B* on in-features")
    for y, name, bases in (*sent, (252, "dY", "A*, C*: the duals")):
        sheet.box(20, y, 200, 54, name, bases, colour=GREEN)
    forward = 86, "Y' = X' W'ᵀ", "and keeps X' and W'"
    backward = (216, "dX' = dY' W'", "with the W' it kept"), (284, "dW' = dY'ᵀ X'", "with the X' it kept")
    for y, name, words in (forward, *backward):
        sheet.box(325, y, 210, 56, name, words, colour=RED)
    for y, name, words in ((86, "Y", "A, C"), (216, "dX", "A*, B*"), (284, "dW", "C*, B")):
        sheet.box(640, y, 200, 56, name, words, colour=GREEN)
        sheet.arrow(535, y + 28, 638, y + 28)
    sheet.arrow(220, 81, 323, 106)
    sheet.arrow(220, 149, 323, 124)
    sheet.arrow(220, 272, 323, 248)
    sheet.arrow(220, 286, 323, 308)
    sheet.text(20, 210, "forward above, backward below", size=12, colour=SOFT, anchor="start")
    return sheet


def basis() -> Sheet:
    sheet = Sheet(
        860, 210, "A secret basis of the scheme mixing",
        "Each axis of each operand is multiplied by five factors: secret permutation and signed scales, a "
        "public butterfly over blocks of 64, again secret, again public, and a last secret one. Both ends "
        "are secret.",
    )  # fmt: skip
    secret, public = ("permute, scale", GREEN), ("mix 64 at a time", LINE)
    factors = ("M₂", *secret), ("H", *public), ("M₁", *secret), ("H", *public), ("M₀", *secret)
    sheet.text(50, 100, "E  =", weight=600, size=18)
    for number, (name, words, colour) in enumerate(factors):
        sheet.box(90 + 152 * number, 60, 136, 70, name, words, colour=colour)
    words = "green: secret, drawn anew from a keystream for every operation (rows) or weight (features)"
    sheet.text(430, 165, words, size=13, colour=SOFT)
    words = "grey: public butterflies; at an end they would simply be undone"
    sheet.text(430, 188, words, size=13, colour=SOFT)
    return sheet


DRAWINGS = {"parties": parties, "flow": flow, "key-shift": shift, "basis": basis}


def main() -> None:
    for name, make in DRAWINGS.items():
        (Path(__file__).parent / f"{name}.svg").write_text(make().svg)


if __name__ == "__main__":
    main()
