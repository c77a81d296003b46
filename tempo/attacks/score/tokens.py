"""Tokens and clusters against the true rows. Row i as seen counts as the true row that weighs most in it.

Chance is what the same answers score when they are dealt out to the rows at random (expected, not drawn): a
frequent token is right often.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
from torch import Tensor

from tempo.attacks.score.scorer import Scorer
from tempo.attacks.tokens import Read, Tokens
from tempo.attacks.truth import Plain, Truth, matrix
from tempo.attacks.verdict import Trials


@final
class TokensScorer(Scorer[Read]):
    attack: ClassVar[type[Tokens]] = Tokens

    def score(self, guess: Read, truth: Truth) -> dict[str, Trials]:
        hits, chances, twins, blind = [], [], [], []
        for id_, tokens in guess.tokens_of.items():
            plain = truth.of(id_)
            row = source_rows(plain)[: len(tokens)]
            true = _tokens(plain.plain, guess)[row]
            hits += (tokens == true).float().tolist()
            chances += [_dealt_out(tokens, true)] * len(true)
            found, lucky = _twins(plain.plain, row, guess.clusters[id_])
            twins += found
            blind += lucky
        trials = {
            "X, tokens": Trials(hits, sum(chances) / len(chances), "the same tokens dealt out at random")
        }
        if twins:
            chance = sum(blind) / len(blind)
            trials["X, equal rows"] = Trials(twins, chance, "the same clusters dealt out at random")
        return trials


def source_rows(plain: Plain) -> Tensor:
    """For each row as seen the true row with the largest coefficient in it. Of an operand of one group."""
    if not plain.left:
        return torch.arange(len(plain.plain))
    return matrix(plain.left[0]).abs().argmax(1)


def _tokens(rows: Tensor, guess: Read) -> Tensor:
    a, b = (torch.nn.functional.normalize(t.float(), dim=1) for t in (rows, guess.states))
    return guess.tokens[(a @ b.mT).argmax(1)]


def _dealt_out(guessed: Tensor, true: Tensor) -> float:
    values = torch.cat([guessed, true]).unique()
    shares = [torch.stack([(t == v).double().mean() for v in values]) for t in (guessed, true)]
    return float(shares[0] @ shares[1])


def _twins(rows: Tensor, of: Tensor, clusters: Tensor) -> tuple[list[float], list[float]]:
    """Of each row as seen (of: its true row) that has an equal one: is a true twin in its cluster; and the
    chance of that, if clusters of the same sizes were made at random."""
    unit = torch.nn.functional.normalize(rows[of].double(), dim=1)
    # The same true row twice is no twin: where rows are mixed, several may have one source.
    same = ((unit @ unit.mT) > 1 - 1e-9) & (of[:, None] != of)
    together = (clusters[:, None] == clusters).fill_diagonal_(False)
    has = same.any(1)
    others = max(1, len(of) - 1)
    odds = 1 - (1 - same.double().sum(1) / others) ** together.double().sum(1)
    return (same & together).any(1)[has].float().tolist(), odds[has].tolist()
