"""Judge of attack 4.

An operand is recognised if, of all candidates, the one it is taken for comes nearest to what was sealed: a
candidate is what its batch would have been under weights that the attacker has, which steps have moved since.
A row is placed if it is taken for itself (or for its equal); a link is right if both operands have the same
zeros in plain."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from tempo.attacks.score.scorer import Scorer
from tempo.attacks.truth import Truth, matrix
from tempo.attacks.verdict import Trials
from tempo.attacks.zero_pattern import ZeroPattern, ZeroPatterns


def _alike(dy: Tensor, x: Tensor) -> float:
    return float(((dy != 0) == (x != 0)).double().mean())


@final
class ZeroPatternScorer(Scorer[ZeroPatterns]):
    attack = ZeroPattern

    def score(self, guess: ZeroPatterns, truth: Truth) -> dict[str, Trials]:
        out: dict[str, Trials] = {}
        batches, rows, chance_rows = [], [], []
        for each in guess.recognised:
            x = truth.of(each.x_id)
            apart = [float((torch.from_numpy(t) - x.plain).norm()) for t in each.known]
            taken, right = torch.from_numpy(each.known[each.at]), apart[each.at] == min(apart)
            batches.append(float(right))
            if right and len(each.rows):
                # The plain row with the largest share: the row itself where rows are only permuted.
                own = taken[matrix(x.left[0]).abs().argmax(1)]
                found = taken[torch.from_numpy(each.rows)]
                rows += (own == found).all(1).double().tolist()
                chance_rows.append(1 / len(x.plain))
        if batches:
            blind = sum(1 / len(each.known) for each in guess.recognised) / len(guess.recognised)
            out["X among candidates"] = Trials(batches, blind, "one of as many candidates")
        if rows:
            blind = sum(chance_rows) / len(chance_rows)
            out["rows of a recognised X"] = Trials(rows, blind, "one of as many rows")
        if guess.links:
            right_links = []
            for dy_id, x_id, _ in guess.links:
                dy, next_x = truth.of(dy_id).plain, truth.of(x_id).plain
                same = dy.shape == next_x.shape and _alike(dy, next_x) > 0.99
                right_links.append(float(same))
            blind = sum(1 / n for _, _, n in guess.links) / len(guess.links)
            out["dY to the next X"] = Trials(right_links, blind, "one of as many operands with as many rows")
        return out
