"""Train the small story model that Puma embeds as its default.

The model is a LLaMA-architecture language model of about 1.8 million parameters with its own byte-level
tokenizer, trained from scratch on a text file of TinyStories (https://huggingface.co/datasets/roneneldan/TinyStories,
licence CDLA-Sharing-1.0) on one CPU core.  The output is an ordinary Hugging Face folder:

    python examples/train_story_model.py STORIES.txt OUT_DIR

The text file is small, so the script leans on regularisation: dropout in the residual stream, weight decay
and renaming (the children of a story get other names in half of the passes, which teaches the model to copy
a name from its context instead of learning it by heart).
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

BOS, EOS = "<s>", "</s>"
GIRLS = ("Lily", "Lucy", "Sue", "Sarah", "Anna", "Jane", "Sally", "Mia", "Amy", "Sara", "Emma", "Molly")
BOYS = ("Timmy", "Tim", "Ben", "Tom", "Sam", "Jack", "Max", "Bob", "Billy", "Tommy", "John", "Joe")
GIRL = "One day, a little girl named Lily"
PROMPTS = ("Once upon a time", "Once upon a time, there was a little", GIRL, "Tom and his dog")
# A blank line followed by one of these openings starts a new story.
OPENING = re.compile(
    r"\n\s*\n\s*(?=Once upon a time|Once,? there|There (?:once )?(?:was|lived) a|It was a \w+ day and"
    r"|One day,? (?:a|an|two) [^.\n]*? named"
    r"|[A-Z]\w+ and [A-Z]\w+ (?:(?:are|were) (?:friends|twins|best|playing|bored|brother)|(?:like|love)d? to)"
    r"|[A-Z]\w+ (?:was|is) an? (?!bit))"
)
# What follows "â€" where UTF-8 punctuation was read as Windows-1252; anything else was a double quote.
BROKEN = {"™": "'", "˜": "'", "“": "-", "”": "-", "¦": "...", "Š": " "}
PUNCTUATION = str.maketrans("“”‘’–—`", "\"\"''--'")

CARD = """---
language: en
license: cdla-sharing-1.0
library_name: transformers
pipeline_tag: text-generation
---
# Story model

A language model with the LLaMA architecture ({parameters:,} parameters) that continues a children's story in
simple English.  It is Puma's embedded default model: small enough to travel with the package, and a real
Transformer.  It knows nothing but its stories; do not ask it for facts.

* Architecture: {layers} layers, hidden size {hidden}, {heads} query heads on {kv_heads} key-value heads,
  gated SiLU feed-forward of {intermediate}, RMSNorm, rotary positions, tied embeddings, vocabulary
  {vocabulary}, context {context}, weights in float16.
* Tokenizer: byte-level BPE, trained on the same text; every prompt starts with `<s>`, a story ends with
  `</s>`, and paragraphs are separated by one newline.
* Data: `{source}`, an excerpt of the validation split of
  [TinyStories](https://huggingface.co/datasets/roneneldan/TinyStories) (Ronen Eldan and Yuanzhi Li), licence
  [CDLA-Sharing-1.0](https://cdla.dev/sharing-1-0/): {trained} stories for training, {held} held out.
* Loss: {train:.3f} nats per token in training (with dropout and renaming), {validation:.3f} on the held-out
  stories; the lowest validation loss on the way was {best:.3f}.  Training goes on beyond it on purpose: the
  model knows its training stories partly by heart, and does worse on openings that are unlike theirs.

Made in {steps} of {planned} planned steps (the schedule shrinks to fit the time limit) by

```
{command}
```

Greedy continuations of 60 tokens:

{samples}
"""


def parse_args() -> Namespace:
    """Read the command line."""
    parser = ArgumentParser(description="Train a small story model.")
    parser.add_argument("stories", type=Path, help="a TinyStories text file")
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--minutes", type=float, default=38.0, help="time limit; the schedule shrinks to fit")
    parser.add_argument("--epochs", type=int, default=36, help="passes over the stories")
    parser.add_argument("--batch", type=int, default=2, help="stories per step")
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.1, help="AdamW weight decay of the matrices")
    parser.add_argument("--dropout", type=float, default=0.1, help="in embeddings and residual branches")
    parser.add_argument("--rename", type=float, default=0.5, help="chance to rename the children of a story")
    shape = {"layers": 4, "hidden": 192, "heads": 6, "kv-heads": 2, "intermediate": 512}
    for name, value in (shape | {"vocabulary": 1024, "context": 512, "threads": 1, "seed": 1}).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def clean(text: str) -> str:
    """Repair broken punctuation and keep plain ASCII."""
    text = re.sub("â€([^\x00-\x7fâ]?)", lambda match: BROKEN.get(match[1], '"'), text.replace("\r", ""))
    return text.translate(PUNCTUATION).encode("ascii", "ignore").decode("ascii")


def read_stories(path: Path, shortest: int = 150) -> list[str]:
    """Split a file into stories of one paragraph per line; drop fragments."""
    parts = OPENING.split(clean(path.read_text(encoding="utf-8", errors="ignore")))
    stories = [re.sub(r"\s*\n\s*", "\n", re.sub(r"[ \t]+", " ", part)).strip() for part in parts]
    return [story for story in stories[1:] if len(story) >= shortest]  # the file may start within a story


def rename(story: str, rng: random.Random) -> str:
    """Give the children of a story other names, each girl a girl's and each boy a boy's."""
    mapping: dict[str, str] = {}
    for names in (GIRLS, BOYS):
        mapping.update(zip(names, rng.sample(names, len(names)), strict=True))
    return re.sub(rf"\b(?:{'|'.join(mapping)})\b", lambda match: mapping[match[0]], story)


def train_tokenizer(stories: list[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer that puts <s> in front of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[BOS, EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(stories, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return tokenizer


def build_model(args: Namespace, tokenizer: Tokenizer) -> LlamaForCausalLM:
    """A freshly initialised model whose dropout layers act in training mode only."""
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        max_position_embeddings=args.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
    )
    model = LlamaForCausalLM(config)
    depth_scale = (2 * args.layers) ** -0.5
    for layer in model.model.layers:
        for branch in (layer.self_attn.o_proj, layer.mlp.down_proj):
            torch.nn.init.normal_(branch.weight, std=config.initializer_range * depth_scale)
            add_dropout(branch, args.dropout)
    add_dropout(model.model.embed_tokens, args.dropout)
    return model


def add_dropout(module: torch.nn.Module, chance: float) -> None:
    """Apply dropout to the output of a module while it trains."""
    module.register_forward_hook(lambda self, _, output: functional.dropout(output, chance, self.training))


def encode(tokenizer: Tokenizer, stories: list[str], context: int) -> list[list[int]]:
    """Token ids of stories, each from <s> to </s>, cut at the context length."""
    end = tokenizer.token_to_id(EOS)
    return [[*encoding.ids, end][: context + 1] for encoding in tokenizer.encode_batch(stories)]


def loss_of(model: LlamaForCausalLM, rows: list[list[int]], reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy of the next token; padding comes last, so causal attention needs no mask."""
    width = max(map(len, rows))
    inputs = torch.tensor([row[:-1] + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([row[1:] + [-100] * (width - len(row)) for row in rows])
    logits = model(input_ids=inputs, use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction=reduction)


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, rows: list[list[int]]) -> float:
    """Mean loss per token over held-out rows."""
    model.eval()
    total = sum(float(loss_of(model, [row], reduction="sum")) for row in rows)
    model.train()
    return total / sum(len(row) - 1 for row in rows)


@torch.no_grad()
def sample(model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str, length: int = 60) -> str:
    """The prompt with its greedy continuation."""
    model.eval()
    inputs = torch.tensor([tokenizer.encode(prompt).ids])
    options = {"attention_mask": torch.ones_like(inputs), "pad_token_id": 0, "do_sample": False}
    return tokenizer.decode(model.generate(inputs, max_new_tokens=length, **options)[0].tolist())


def batches(stories: list[str], tokenizer: Tokenizer, args: Namespace) -> Iterator[list[list[int]]]:
    """Shuffled batches of stories of similar length, in every epoch with other names."""
    rng = random.Random(args.seed)
    for _ in range(args.epochs):
        varied = [rename(story, rng) if rng.random() < args.rename else story for story in stories]
        rows = encode(tokenizer, varied, args.context)
        rows.sort(key=lambda row: len(row) * rng.uniform(0.85, 1.15))
        groups = [rows[start : start + args.batch] for start in range(0, len(rows), args.batch)]
        rng.shuffle(groups)
        yield from groups


def train(
    model: LlamaForCausalLM, tokenizer: Tokenizer, stories: list[str], held: list[str], args: Namespace
) -> dict[str, float | str]:
    """Train with a warm-up and a cosine schedule; return the losses and the numbers of steps."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    norms = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": args.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.99))
    held_rows = encode(tokenizer, held, args.context)
    per_epoch = math.ceil(len(stories) / args.batch)
    steps = args.epochs * per_epoch
    begin, done, recent, losses = time.monotonic(), 0, math.nan, [math.inf]
    model.train()
    for step, rows in enumerate(batches(stories, tokenizer, args), 1):
        minutes = (time.monotonic() - begin) / 60
        progress = max(step / steps, minutes / args.minutes)
        if progress > 1:
            break
        done = step
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(step / 200, 0.02 + 0.98 * (1 + math.cos(math.pi * progress)) / 2)
        loss = loss_of(model, rows)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = loss.item() if math.isnan(recent) else 0.98 * recent + 0.02 * loss.item()
        if step % (2 * per_epoch) == 0:
            losses.append(evaluate(model, held_rows))
            report = f"train {recent:.3f}  validation {losses[-1]:.3f}"
            print(f"step {step}/{steps}  {minutes:.1f} min  {report}", flush=True)
    losses.append(evaluate(model, held_rows))
    final = {"train": recent, "validation": losses[-1], "best": min(losses)}
    return {**final, "steps": done, "planned": steps}


def command_line(args: Namespace) -> str:
    """The command of this run with all its options, without the folders of this computer."""
    options = list(vars(args).items())[2:]  # after the positional arguments
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options]
    lines = [f"python examples/train_story_model.py {args.stories.name} OUT_DIR"]
    lines += [" ".join(words[start : start + 5]) for start in range(0, len(words), 5)]
    return " \\\n    ".join(lines)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path) -> None:
    """Write the Hugging Face folder, without its model card."""
    model.half().save_pretrained(out)
    tokenizer.save(str(out / "tokenizer.json"))
    marks = {"bos_token": BOS, "eos_token": EOS, "model_max_length": model.config.max_position_embeddings}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **marks, "clean_up_tokenization_spaces": False}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Train, sample and save."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    stories = read_stories(args.stories)
    rng.shuffle(stories)
    held, stories = stories[: len(stories) // 20], stories[len(stories) // 20 :]
    tokenizer = train_tokenizer(stories + [rename(story, rng) for story in stories], args.vocabulary)
    model = build_model(args, tokenizer)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(stories)} stories to train on, {len(held)} held out, {parameters:,} parameters", flush=True)
    results = train(model, tokenizer, stories, held, args)
    samples = [sample(model, tokenizer, prompt) for prompt in PROMPTS]
    print("train {train:.3f}  validation {validation:.3f}".format(**results), *samples, sep="\n\n")
    save(model, tokenizer, args.out)
    counts = {"parameters": parameters, "trained": len(stories), "held": len(held)}
    results |= {**counts, "source": args.stories.name}
    quotes = "\n\n".join("> " + text.replace("\n", "\n> ") for text in samples)
    card = CARD.format(command=command_line(args), samples=quotes, **results, **vars(args))
    (args.out / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
