"""What processes of the pool share: imported once, by the server they are forked from."""

import logging
import os
import warnings
from importlib.util import find_spec

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
warnings.simplefilter("ignore")
logging.disable(logging.WARNING)

import torch  # noqa: E402

import tempo  # noqa: E402, F401
from benchmarks.coverage.torchvision_schemas import declare  # noqa: E402

torch.set_num_threads(1)
declare()
for library in ("timm", "transformers"):
    if find_spec(library) is not None:
        __import__(library)
if find_spec("transformers") is not None:
    import transformers.modeling_utils  # noqa: F401
    from transformers.models.auto import modeling_auto  # noqa: F401
