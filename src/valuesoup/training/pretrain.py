"""Pretraining of a small base on dialogues, for the embedded world and for data without a base of the right size."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from valuesoup.errors import RunError, UserError
from valuesoup.training.settings import PretrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from valuesoup.data.pairs import Messages
    from valuesoup.store.progress import Task

PAD, END, USER, ASSISTANT, SYSTEM, UNKNOWN = "<pad>", "<end>", "<user>", "<assistant>", "<system>", "<unk>"
TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '> ' + message['content'] }}"
    "{{ '<end>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)


def pretrain(
    dialogues: Sequence["Messages"],
    settings: PretrainSettings,
    out: Path,
    *,
    seed: int,
    device: str = "cpu",
    task: "Task | None" = None,
) -> dict[str, float]:
    """Train a tokenizer and a small Llama on dialogues, and save both as a Hugging Face folder.

    Args:
        dialogues: Conversations; every token is learnt, prompts and answers.
        settings: Size and length of the training.
        out: The folder.
        seed: Of the weights and the order.
        device: Where to train.
        task: Shows the steps.

    Returns:
        ``parameters``, ``tokens`` of the corpus and the last ``loss`` per token in nats.

    Raises:
        UserError: Fewer tokens than one sequence.
        RunError: The loss became NaN.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

    tokenizer = build_tokenizer(dialogues, settings)
    tokenizer.save_pretrained(out)
    blocks = _blocks(dialogues, tokenizer, settings.context)
    if len(blocks) == 0:
        raise UserError(f"pretraining needs at least {settings.context} tokens of dialogues; give more data.")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden,
        intermediate_size=settings.hidden * 8 // 3 // 32 * 32 or 32,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=max(2048, settings.context),
        # Wider than the usual 0.02, which suits large models: a small one learns about twice as fast from here.
        initializer_range=0.7 / settings.hidden**0.5,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimiser, round(0.05 * settings.steps), settings.steps)
    order = _batches(len(blocks), settings.batch_size, seed)
    losses = []
    for step in range(settings.steps):
        ids = torch.from_numpy(blocks[next(order)].astype(np.int64)).to(device)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise RunError(f"pretraining: the loss became NaN at step {step + 1}; lower learning_rate.")
        if task is not None:
            task.update(step + 1)
    model.eval().save_pretrained(out)
    parameters = float(sum(p.numel() for p in model.parameters()))
    return {"parameters": parameters, "tokens": float(blocks.size), "loss": float(np.mean(losses[-20:]))}


def build_tokenizer(dialogues: Sequence["Messages"], settings: PretrainSettings) -> "PreTrainedTokenizerFast":
    """Train a tokenizer on the dialogues, with a chat template that marks who speaks.

    The markers are special tokens: a text in which one is spelt out holds that token, as with any chat template.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = [PAD, END, USER, ASSISTANT, SYSTEM, UNKNOWN]
    trainer: Any
    if settings.tokenizer == "words":
        inner = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trainer = trainers.WordLevelTrainer(vocab_size=settings.vocabulary, special_tokens=special)
    else:
        inner = Tokenizer(models.BPE(unk_token=None))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=settings.vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    inner.train_from_iterator(_texts(dialogues), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _texts(dialogues: Iterable["Messages"]) -> Iterator[str]:
    for messages in dialogues:
        for message in messages:
            yield message["content"]


def _blocks(dialogues: Sequence["Messages"], tokenizer: "PreTrainedTokenizerFast", width: int) -> Any:
    texts = [tokenizer.apply_chat_template(list(messages), tokenize=False) for messages in dialogues]
    ids = np.fromiter(
        (token for row in tokenizer(texts, add_special_tokens=False)["input_ids"] for token in row), np.int32
    )
    whole = len(ids) // width * width
    return ids[:whole].reshape(-1, width)


def _batches(count: int, size: int, seed: int) -> Iterator[Any]:
    """Yield index arrays for ever, each epoch in another order."""
    generator = np.random.default_rng(seed)
    waiting = np.empty(0, np.int64)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, generator.permutation(count)])
        yield waiting[:size]
        waiting = waiting[size:]
