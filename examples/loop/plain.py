"""A plain loop with what loops have: accumulation, clipping, a schedule, an average of the weights (EMA).

The weights are written as safetensors and read back. Data: scikit-learn's digits, nothing is downloaded.
"""

import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

torch.manual_seed(0)
digits = load_digits()
images, labels = torch.Tensor(digits.images / 16).unsqueeze(1), torch.tensor(digits.target)


def build():
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.SiLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(64 * 16, 128),
        nn.SiLU(),
        nn.Linear(128, 10),
    )


model = build()
ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=12)

losses = []
batches = torch.randperm(1536).view(12, 2, 64)  # of each step two micro-batches
for step in batches:
    for micro in step:
        loss = F.cross_entropy(model(images[micro]), labels[micro]) / len(step)
        loss.backward()
        losses.append(loss.item() * len(step))
    nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    ema.update_parameters(model)
    print(f"loss {losses[-1]:.4f}, learning rate {schedule.get_last_lr()[0]:.1e}")

ema.eval()
with torch.no_grad():
    accuracy = (ema(images[1536:]).argmax(1) == labels[1536:]).double().mean().item()
print(f"accuracy of the averaged weights on digits not seen: {accuracy:.3f}")

with tempfile.TemporaryDirectory() as folder:
    save_model(model, Path(folder) / "model.safetensors")
    again = build()
    load_model(again, Path(folder) / "model.safetensors")
unchanged = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
print(f"weights read back are the same: {unchanged}")
