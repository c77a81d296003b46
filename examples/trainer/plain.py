"""Hugging Face's Trainer on a small GPT-2 that learns bytes of text: accumulation, clipping, warm-up.

The text is what scikit-learn ships about its data sets; the model starts at random, nothing is downloaded.
"""

import tempfile

import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

loaders = (load_breast_cancer, load_diabetes, load_digits, load_wine)
text = "".join(load().DESCR for load in loaders).encode()
blocks = torch.tensor(list(text)[: len(text) // 64 * 64]).view(-1, 64)
data = [{"input_ids": block, "labels": block} for block in blocks]

torch.manual_seed(0)
config = GPT2Config(
    vocab_size=256, n_positions=64, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
)
model = GPT2LMHeadModel(config)

with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=8,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        max_grad_norm=1.0,
        warmup_steps=2,
        learning_rate=5e-3,
        logging_steps=1,
        save_steps=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=data[:8])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    losses.append(trainer.evaluate()["eval_loss"])
    trainer.save_model(f"{folder}/model")
    again = AutoModelForCausalLM.from_pretrained(f"{folder}/model")
unchanged = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
print(f"weights read back are the same: {unchanged}")
