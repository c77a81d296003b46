"""torch.autocast in bfloat16: layers compute and hand on bfloat16, weights and optimizer stay float32.

A small vision transformer on scikit-learn's digits, 16 patches each.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import tempo

torch.manual_seed(0)
digits = load_digits()
patches = torch.Tensor(digits.images / 16).unfold(1, 2, 2).unfold(2, 2, 2).reshape(-1, 16, 4)
labels = torch.tensor(digits.target)


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 64)
        self.place = nn.Parameter(0.1 * torch.randn(16, 64))
        layer = nn.TransformerEncoderLayer(64, 2, 128, dropout=0.0, activation="gelu", batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(64 * 16, 10)

    def forward(self, x):
        return self.head(self.body(self.embed(x) + self.place).flatten(1))


model = Transformer()
session = tempo.Session(workers="local:2")
session.protect(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

losses = []
for batch in torch.randperm(640).split(64):
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(patches[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    print(f"loss {losses[-1]:.4f}")
session.close()
