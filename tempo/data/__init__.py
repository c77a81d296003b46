"""Sealed data as ordinary PyTorch data sets, opened inside the TEE alone.

dataset = tempo.data.SealedDataset("train.tempo", DataKey.load(path))
loader = DataLoader(dataset, batch_size=64, sampler=tempo.data.SealedSampler(dataset))
"""

from tempo.data.dataset import SealedDataset
from tempo.data.sampler import SealedBatchSampler, SealedSampler

__all__ = ["SealedBatchSampler", "SealedDataset", "SealedSampler"]
