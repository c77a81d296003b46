"""Fine-tuning with PEFT's LoRA: the base is frozen, adapters of rank 4 learn. Merged and saved at the end.

The base is a small Llama that starts at random; the text is what scikit-learn ships about its data sets.
"""

import tempfile

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from sklearn.datasets import load_digits, load_wine
from transformers import LlamaConfig, LlamaForCausalLM

import tempo

text = (load_digits().DESCR + load_wine().DESCR).encode()
blocks = torch.tensor(list(text)[: len(text) // 32 * 32]).view(-1, 32)

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
base = LlamaForCausalLM(config)
model = get_peft_model(base, LoraConfig(r=4, lora_alpha=16, target_modules="all-linear"))
session = tempo.Session(workers="local:2")
session.protect(model)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)

losses = []
for batch in blocks[:96].split(8):
    loss = model(input_ids=batch, labels=batch).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
    print(f"loss {losses[-1]:.4f}")

with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(f"{folder}/adapters")
    adapters = load_file(f"{folder}/adapters/adapter_model.safetensors")
    merged = model.merge_and_unload()
    merged.save_pretrained(f"{folder}/merged")
    again = LlamaForCausalLM.from_pretrained(f"{folder}/merged")
unchanged = all(torch.equal(a, b) for a, b in zip(merged.parameters(), again.parameters(), strict=True))
print(f"{len(adapters)} adapters saved; merged weights read back are the same: {unchanged}")
session.close()
