"""Transcripts of synthetic operands under real keys, with the truth beside them, for tests of attacks.

    wire = Wire(tmp_path, "monomial")
    wire.layer(w_NK, [(x_TK, dy_TN), ...])     one W epoch: each pair is a forward pass and its gradients
    attack.run(wire.transcript, knowledge)

Settings as in Config; a scheme may also be an object (a planted leak).
"""

from itertools import count

import torch

from tempo.attacks import Transcript
from tempo.attacks.transcript import Seen
from tempo.attacks.truth import Truth
from tempo.config import Config
from tempo.ops import Op, grad_w, grad_x, product
from tempo.secrecy.keys import SessionKey
from tempo.secrecy.rows import Selection
from tempo.secrecy.seal import FeatureKey, RowKey, draw_centre
from tempo.truth import UnsafeTruth


class Wire:
    def __init__(self, folder, scheme="mixing", **options):
        named = isinstance(scheme, str)
        options = {"unsafe_small": True, "min_size": 1, **options}
        self.scheme = Config(scheme=scheme, **options).make_scheme() if named else scheme
        self.key, self.folder, self.ids, self.seen = SessionKey(), folder, count(1), []
        self._truth = UnsafeTruth(folder)

    @property
    def transcript(self):
        return Transcript(tuple(self.seen))

    @property
    def truth(self):
        return Truth(self.folder)

    def layer(self, w, passes, *, name=""):
        """w: (N, K) or (G, N, K). passes: (x, dy) each (G, R, F) or (R, F), dy may be None."""
        w = w if w.ndim == 3 else w[None]
        groups, n, k = w.shape
        number = next(self.ids)
        features = FeatureKey(self.key, self.scheme, ("W", number), groups=groups, k=k, n=n)
        parameter = torch.nn.Parameter(w)
        self._truth._names[id(parameter)] = name
        w_sent = features.seal_w(w.float())
        duals = [b.dual() for b in features.b]
        self._truth.weight(number, parameter, "linear", w, features.c, duals)
        return [self._pass(number, w_sent, features, x, dy) for x, dy in passes]

    def _pass(self, w_id, w_sent, features, x, dy):
        x = (x if x.ndim == 3 else x[None]).float()
        groups, r, _ = x.shape
        rows, where = (r,) * groups, Selection.everything(groups, r)
        x_id = next(self.ids)
        row_key = RowKey(self.key, self.scheme, ("rows", x_id), rows)
        a = row_key.bases()
        centre = draw_centre(self.key, ("c", x_id), x, where) if self.scheme.blurs_rows else None
        x_sent = row_key.seal_x(a, features.b, x, where, centre)
        self._truth.rows(x_id, "x", w_id, list(x), a, features.b)
        self._saw(Op.PRODUCT, x_id, w_id, x_sent, w_sent, product(x_sent, w_sent, rows), rows)
        if dy is not None:
            dy = (dy if dy.ndim == 3 else dy[None]).float()
            dy_id = next(self.ids)
            dy_sent = row_key.seal_dy(a, features.c, dy, where)
            duals = [b.dual() for b in a], [b.dual() for b in features.c]
            self._truth.rows(dy_id, "dy", x_id, list(dy), *duals)
            self._saw(Op.GRAD_W, dy_id, x_id, dy_sent, x_sent, grad_w(dy_sent, x_sent, rows), rows)
            self._saw(Op.GRAD_X, dy_id, w_id, dy_sent, w_sent, grad_x(dy_sent, w_sent, rows), rows)
        return x_id

    def _saw(self, op, left_id, right_id, left, right, result, rows):
        at = float(len(self.seen))
        self.seen.append(Seen("worker-0", op, left_id, right_id, left, right, result, rows, (at, at + 0.5)))
