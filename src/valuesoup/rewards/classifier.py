"""Rewards from Hugging Face sequence classifiers: one logit, with a sign, on the model's own template."""

import hashlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valuesoup.data.pairs import Messages
from valuesoup.errors import RunError, UserError
from valuesoup.limits import loading_fault
from valuesoup.rewards.batching import CPU_TOKENS, GPU_TOKENS, Budget, padded_logits
from valuesoup.rewards.rendering import Renderer, check_template

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from valuesoup.rewards.last_token import LastToken

logger = logging.getLogger(__name__)

_WEIGHTS_AND_TOKENS = (".json", ".safetensors", ".bin", ".jinja", ".model", ".txt", ".py")


@dataclass(eq=False)
class ClassifierReward:
    """A reward model from a hub id or a local folder; loaded at the first score, kept until `close`.

    Each distinct text is computed once, in batches of similar length; where the model is a decoder, what the texts of
    a prompt have in common is computed once too. None of that changes a score. A response is never cut.

    Attributes:
        model: Hub id or folder of a sequence classifier.
        logit: Which of its outputs is the reward.
        sign: +1, or -1 for a cost, of which less is better.
        template: ``chat``, ``human-assistant``, a text with {prompt} and {response}, or None: the tokenizer's chat
            template where it has one, else ``human-assistant``. See `rendering.Renderer`.
        max_length: Most tokens of prompt and response together; None takes the model's own limit.
        truncate_prompt: Cut too long prompts from the left instead of refusing them; cuts are counted in
            ``truncated`` and logged.
        tokens_per_batch: Most tokens of one batch, padding included; None takes what was measured to be fast on the
            device. Halved, with a warning, whenever memory does not suffice.
        dtype: A torch dtype by name, or ``auto`` for the checkpoint's own.
        device: Where to run; None takes the GPU where there is one.
        revision: Hub revision; pin it, since scores are cached under it.
        trust_remote_code: Run code that comes with the model.
        self_check: (prompt, better response, worse response) triples whose order the model must know; checked when
            it is loaded.

    Raises:
        UserError: A setting is out of its range.
    """

    model: str | Path
    logit: int = 0
    sign: int = 1
    template: str | None = None
    max_length: int | None = None
    truncate_prompt: bool = False
    tokens_per_batch: int | None = None
    dtype: str = "auto"
    device: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    self_check: Sequence[tuple[str, str, str]] = ()
    truncated: int = field(default=0, init=False)
    _loaded: "_Loaded | None" = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_template(self.template)
        if self.sign not in (1, -1):
            raise UserError(f"The sign of reward model '{self.model}' is {self.sign}; it must be 1 or -1.")
        if self.logit < 0:
            raise UserError(f"The logit of reward model '{self.model}' is {self.logit}; the first one is 0.")
        for name, number in (("max_length", self.max_length), ("tokens_per_batch", self.tokens_per_batch)):
            if number is not None and number < 2:
                raise UserError(f"{name} of reward model '{self.model}' is {number}; it must be at least 2.")

    @property
    def name(self) -> str:
        """The model's hub id or path."""
        return str(self.model)

    @property
    def fingerprint(self) -> dict[str, object]:
        """All that the scores depend on: a folder counts by the content of its files, not by its path."""
        folder = Path(self.model)
        identity = {"files": _digest(folder)} if folder.is_dir() else {"model": self.name, "revision": self.revision}
        return {
            "source": "classifier",
            **identity,
            "logit": self.logit,
            "sign": self.sign,
            "template": self.template,
            "max_length": self.max_length,
            "truncate_prompt": self.truncate_prompt,
            "dtype": self.dtype,
            "self_check": [list(check) for check in self.self_check],  # a new one must be run
        }

    def score(
        self, prompts: Sequence[Messages], answers: Sequence[str], advance: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """Return the reward of each answer to its prompt, (N,); higher is better.

        Args:
            prompts: (N,) conversations that end in a user turn.
            answers: (N,) responses.
            advance: Called with the number of answers scored since the last call.

        Raises:
            UserError: The model does not load as a classifier with trained weights, lacks the logit or a padding
                token, fails its self-check, or a text is too long.
        """
        return score_together([self], prompts, answers, advance)[0]

    def close(self) -> None:
        """Free the model's memory; the next score loads it again."""
        self._loaded = None

    @property
    def batches_halved(self) -> bool:
        """Whether memory ran out, so that batches became smaller."""
        return self._loaded is not None and self._loaded.budget.halved

    def reads_as(self, other: "ClassifierReward") -> bool:
        """Return whether another reward is an output of the same model on the same texts."""
        own = {"logit", "sign", "self_check", "truncated", "_loaded"}
        return all(getattr(self, one.name) == getattr(other, one.name) for one in fields(self) if one.name not in own)

    def _of(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.sign * logits[:, self.logit]

    def _logits(
        self,
        loaded: "_Loaded",
        prompts: Sequence[Messages],
        answers: Sequence[str],
        advance: Callable[[int], None] | None = None,
    ) -> NDArray[np.float64]:
        """Return all outputs of the model for each text, (N, logits)."""
        import torch

        sequences = self._fitted(loaded, prompts, answers)
        if not sequences:
            return np.empty((0, loaded.model.config.num_labels))
        longest = max(map(len, sequences))
        advance = advance or (lambda _: None)
        try:
            if loaded.last_token is not None and loaded.last_token.takes(longest):
                whose = [tuple((turn["role"], turn["content"]) for turn in prompt) for prompt in prompts]
                return loaded.last_token.logits(sequences, whose, loaded.budget, advance)
            return padded_logits(loaded.model, loaded.pad, sequences, loaded.budget, advance)
        except torch.OutOfMemoryError:
            raise RunError(
                f"Reward model '{self.model}' does not fit into memory with a text of {longest} tokens; use another "
                "device or a smaller model."
            ) from None

    def _fitted(
        self, loaded: "_Loaded", prompts: Sequence[Messages], answers: Sequence[str]
    ) -> list[NDArray[np.int32]]:
        """Return the token ids of every text, each within the limit."""
        sequences = loaded.renderer.encode(prompts, answers)
        limit = loaded.limit
        long = [row for row, ids in enumerate(sequences) if len(ids) > limit]
        if not long:
            return sequences
        if not self.truncate_prompt:
            raise UserError(
                f"{len(long)} of {len(sequences)} texts are longer than the {limit} tokens that reward model "
                f"'{self.model}' takes (the first is number {long[0]}, the longest has "
                f"{max(len(sequences[row]) for row in long)} tokens); drop them, or set truncate_prompt to cut the "
                "beginning of their prompts."
            )
        hopeless = [
            row for row in long if len(sequences[row]) - loaded.renderer.prompt_length(prompts[row]) > limit - 1
        ]
        if hopeless:
            raise UserError(
                f"{len(hopeless)} of {len(sequences)} responses alone fill the {limit} tokens that reward model "
                f"'{self.model}' takes (the first is number {hopeless[0]}); a response is never cut, so drop them."
            )
        for row in long:
            # The token that opens every sequence stays: models score badly without it.
            opening = sequences[row][:1] if sequences[row][0] == loaded.first else sequences[row][:0]
            sequences[row] = np.concatenate([opening, sequences[row][len(opening) - limit :]])
        self.truncated += len(long)
        logger.warning("%s: %d of %d prompts were cut to fit %d tokens", self.model, len(long), len(sequences), limit)
        return sequences

    def _load(self, like: "_Loaded | None" = None) -> "_Loaded":
        """Return the model, checked for this reward; ``like`` is one that another reward has loaded."""
        if self._loaded is not None:
            return self._loaded
        if like is None:
            with quiet():
                like = _Loaded.load(self)
        outputs = like.model.config.num_labels
        if self.logit >= outputs:
            raise UserError(
                f"Reward model '{self.model}' has {outputs} logit(s), so there is no logit {self.logit}; the last one "
                f"is {outputs - 1}."
            )
        for prompt, better, worse in self.self_check:
            turn: Messages = [{"role": "user", "content": prompt}]
            high, low = self._of(self._logits(like, [turn, turn], [better, worse]))
            if not high > low:
                raise UserError(
                    f"Reward model '{self.model}' fails its self-check: it scores {better!r} at {high:.4g}, not above "
                    f"{worse!r} at {low:.4g}; check its sign ({self.sign}), logit ({self.logit}) and template "
                    f"('{like.renderer.template}')."
                )
        self._loaded = like
        return like


def score_together(
    rewards: Sequence[ClassifierReward],
    prompts: Sequence[Messages],
    answers: Sequence[str],
    advance: Callable[[int], None] | None = None,
) -> list[NDArray[np.float64]]:
    """Return the scores of each answer under several outputs of one model, (N,) for each, by one pass.

    Args:
        rewards: Of which each `ClassifierReward.reads_as` the first.
        prompts: (N,) conversations that end in a user turn.
        answers: (N,) responses.
        advance: Called with the number of answers scored since the last call.

    Raises:
        UserError: As `ClassifierReward.score`.
    """
    loaded = rewards[0]._load()
    for reward in rewards[1:]:
        reward._load(loaded)
    logits = rewards[0]._logits(loaded, prompts, answers, advance)
    return [reward._of(logits) for reward in rewards]


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A reward model in memory, with what encoding needs to know of it."""

    model: "PreTrainedModel"
    renderer: Renderer
    pad: int
    limit: int
    first: int | None
    budget: Budget
    last_token: "LastToken | None"

    @classmethod
    def load(cls, reward: ClassifierReward) -> "_Loaded":
        import torch
        from transformers import AutoModelForSequenceClassification

        from valuesoup.rewards.last_token import LastToken

        path = Path(reward.model)
        if path.is_absolute() and not path.exists():
            raise UserError(f"Reward model '{reward.model}' does not exist; give a local folder or a hub id.")
        name, revision, trusted = str(reward.model), reward.revision, reward.trust_remote_code
        tokenizer = load_tokenizer(name, revision, trusted)
        try:
            model, report = AutoModelForSequenceClassification.from_pretrained(
                name, dtype=reward.dtype, output_loading_info=True, revision=revision, trust_remote_code=trusted
            )
        except Exception as error:
            raise UserError(f"Reward model '{reward.model}' does not load ({loading_fault(error)}).") from None
        if report["missing_keys"]:
            raise UserError(
                f"'{reward.model}' is not a trained sequence classifier: its files have no weights for "
                f"{', '.join(sorted(report['missing_keys'])[:3])}; a plain language model must be trained as a reward "
                "model first."
            )
        device = reward.device or ("cuda" if torch.cuda.is_available() else "cpu")
        limit = length_limit(model.config, tokenizer)
        renderer, pad = Renderer(tokenizer, reward.template), pad_token(model.config, tokenizer)
        model = model.to(device).eval()
        return cls(
            model,
            renderer,
            pad,
            min(limit, reward.max_length or limit),
            tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id,
            Budget(reward.tokens_per_batch or (CPU_TOKENS if device == "cpu" else GPU_TOKENS), name),
            LastToken.of(model, pad),
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the notices and progress bars of transformers and TRL out of the output; errors still come through."""
    from transformers.utils import logging as notices

    others = [logging.getLogger(name) for name in ("trl", "accelerate")]
    levels, verbosity, bars = [log.level for log in others], notices.get_verbosity(), notices.is_progress_bar_enabled()
    notices.set_verbosity_error()
    notices.disable_progress_bar()
    for log in others:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        notices.set_verbosity(verbosity)
        if bars:
            notices.enable_progress_bar()
        for log, level in zip(others, levels, strict=True):
            log.setLevel(level)


def load_tokenizer(
    model: str, revision: str | None = None, trust_remote_code: bool = False
) -> "PreTrainedTokenizerBase":
    """Load the tokenizer that lies beside a reward model or its base.

    Raises:
        UserError: There is none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"'{model}' has no tokenizer that loads ({first_line(error)}); save one beside the model."
        ) from None
    if tokenizer is None or len(tokenizer) == 0:
        raise UserError(f"'{model}' has an empty tokenizer; save the right one beside the model.")
    return tokenizer


def pad_token(config: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the padding token, and make the model's configuration name it.

    A decoder finds the last token of a padded sequence by it, so the model and the batches must agree.

    Raises:
        UserError: Neither the model nor its tokenizer has a padding or end-of-sequence token.
    """
    text = config.get_text_config()
    for token in (text.pad_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None and token >= 0:
            text.pad_token_id = config.pad_token_id = token
            return int(token)
    raise UserError(
        f"Neither '{tokenizer.name_or_path}' nor its tokenizer has a padding or end-of-sequence token; set pad_token."
    )


def length_limit(config: "PretrainedConfig", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Return the most tokens that a model and its tokenizer say they take."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None) or math.inf
    # Without a limit the tokenizer says 10^30.
    return int(min(positions, tokenizer.model_max_length, 10**9))


def _digest(folder: Path) -> str:
    """Return a hash of the model files of a folder."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(path for path in folder.iterdir() if path.suffix in _WEIGHTS_AND_TOKENS):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
