"""`tempo plan canary_model.py:make`: somebody's model and example input, with planted values in both.

The file with the secrets is named by the environment, as a user's own paths might be.
"""

import json
import os
from pathlib import Path

import torch
from torch import nn


def secrets():
    return json.loads(Path(os.environ["CANARIES"]).read_text())


def make():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(64, 80), nn.SiLU(), nn.Linear(80, 64), nn.SiLU(), nn.Linear(64, 10))
    x = torch.randn(96, 64)
    with torch.no_grad():
        net[0].weight[3, 5:7] = torch.tensor(secrets()["weights"])
        net[4].bias[2:4] = torch.tensor(secrets()["weights"])
    x[7, 9:11] = torch.tensor(secrets()["data"])
    return net, x
