"""Hugging Face's accelerate: prepare, accumulate, clip, bfloat16 by mixed_precision, unwrap and save."""

import tempfile

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
digits = load_digits()
data = TensorDataset(torch.Tensor(digits.data / 16)[:640], torch.tensor(digits.target)[:640])
accelerator = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2)

model = nn.Sequential(
    nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 10)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
loader = DataLoader(data, batch_size=64, shuffle=True)
model, optimizer, schedule, loader = accelerator.prepare(model, optimizer, schedule, loader)

losses = []
for _ in range(2):
    for x, labels in loader:
        with accelerator.accumulate(model):
            loss = F.cross_entropy(model(x), labels)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        losses.append(accelerator.gather(loss.detach()).mean().item())
    print(f"loss {losses[-1]:.4f}")

model = accelerator.unwrap_model(model)
with tempfile.TemporaryDirectory() as folder:
    accelerator.save_model(model, folder)
    again = load_file(f"{folder}/model.safetensors")
unchanged = all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
print(f"weights read back are the same: {unchanged}")
