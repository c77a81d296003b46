"""PyTorch Lightning: a LightningModule, a Trainer that accumulates and clips, validation, a checkpoint."""

import tempfile

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(64, 128), nn.SiLU(), nn.BatchNorm1d(128), nn.Linear(128, 128), nn.SiLU()
        )
        self.head = nn.Linear(128, 10)
        self.losses = []

    def forward(self, x):
        return self.head(self.net(x))

    def training_step(self, batch, index):
        x, labels = batch
        loss = F.cross_entropy(self(x), labels)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, index):
        x, labels = batch
        self.log("accuracy", (self(x).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)]


pl.seed_everything(0)
digits = load_digits()
data = TensorDataset(torch.Tensor(digits.data / 16), torch.tensor(digits.target))
train, held = torch.utils.data.random_split(data, [1536, 261])

model = Digits()
with tempfile.TemporaryDirectory() as folder:
    trainer = pl.Trainer(
        max_epochs=2,
        limit_train_batches=8,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
    )
    trainer.fit(model, DataLoader(train, batch_size=96, shuffle=True), DataLoader(held, batch_size=261))
    again = Digits.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
losses = model.losses
unchanged = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
print(f"accuracy {trainer.callback_metrics['accuracy']:.3f}, weights read back are the same: {unchanged}")
