"""Text generation with a cache of keys and values: 64 prompts at once, drawn greedily and by sampling.

The model is a small GPT-2 with random weights, so the text means nothing.
"""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import tempo

torch.manual_seed(0)
config = GPT2Config(
    vocab_size=256, n_positions=64, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
)
model = GPT2LMHeadModel(config)
session = tempo.Session(workers="local:2")
session.protect(model)
model.eval()

prompts = torch.randint(1, 256, (64, 12))
options = {"attention_mask": torch.ones_like(prompts), "min_new_tokens": 12, "max_new_tokens": 12}
tokens = model.generate(prompts, do_sample=False, **options)
torch.manual_seed(1)
sampled = model.generate(prompts, do_sample=True, top_k=20, **options)
with torch.inference_mode():
    losses = [model(input_ids=tokens, labels=tokens).loss.item()]
print(bytes(tokens[0].tolist()), bytes(sampled[0].tolist()))
session.close()
