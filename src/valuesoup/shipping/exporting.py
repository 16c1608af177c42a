"""The export: choose, compose, write, load back, compare with the Soup, and only then give the folder its name."""

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from valuesoup.errors import RunError, UserError, did_you_mean
from valuesoup.pipeline.run import Finished, say_own_code
from valuesoup.pipeline.served import link_base
from valuesoup.rewards.classifier import quiet
from valuesoup.shipping.card import write_cards
from valuesoup.shipping.check import (
    TOLERANCE,
    HeldOut,
    compare,
    cut_divergence,
    held_out,
    load_adapters,
    load_merged,
    plain_log_probs,
    soup_log_probs,
)
from valuesoup.shipping.choice import Choice, choose, every, open_for_export, open_trained
from valuesoup.shipping.exported import Check, Cut, Exported, ExportedPolicy, Form
from valuesoup.shipping.merged import Merge, base_dtype
from valuesoup.shipping.notes import notes_on
from valuesoup.shipping.origin import Origin
from valuesoup.shipping.serving import check_served_rank
from valuesoup.shipping.target import fresh_folder, refuse_occupied
from valuesoup.soup import Soup, ValueVector, cut, load_model, load_tokenizer, position_limit
from valuesoup.store import Progress
from valuesoup.store.files import files_below

Scores = NDArray[np.float64]
LINKED = (
    "the run's server loads models by their path, so each folder has links to the files of the base, and the base one "
    "of its own; copy them to another machine without the links."
)


def export(
    run: str | Path | Finished,
    to: str | Path,
    *,
    method: str | None = None,
    weights: Mapping[str, float] | None = None,
    candidates: Sequence[str] = (),
    everything: bool = False,
    form: Form = "adapter",
    rank: int | None = None,
    progress: Progress | None = None,
) -> Exported:
    """Write policies of a run to a folder that others load: a PEFT adapter, a full model, or adapters to serve.

    The adapter is exact: factors stacked, Σ λ_i s_i B_i A_i (VC-Soup, arXiv:2603.18113, Eq. 7, 17). What was written
    is loaded back by plain transformers and PEFT in float32, and its log-probabilities of held-out responses are
    compared with the Soup's.

    Args:
        run: Folder of a finished run, or the run.
        to: A folder that is new or empty; it appears when everything is done.
        method: Whose dial ``weights`` set; by default the only one that has a dial.
        weights: By value, 0 or more; a value left out weighs 0.
        candidates: Ids of candidates, also of methods without a dial. One policy in all, except for vllm.
        everything: Instead, every candidate as for ``vllm``, also of a run that waits for a server to answer. Where
            that server's names are paths in ``to``, each folder is made a whole model by links to the base.
        form: ``adapter``, ``merged`` or ``vllm``.
        rank: Cut adapters to this rank per layer by SVD.
        progress: Where to show what goes on; nowhere by default.

    Raises:
        UserError: What is to be exported is unknown or not one policy, the folder is not empty, or the run is
            unfinished, damaged, or of a base that changed since.
        RunError: The disk is full, or the export does not answer as the Soup does; then it is kept as
            ``NAME.failed-check``.
    """
    if form not in get_args(Form):
        raise UserError(f"there is no form '{form}'{did_you_mean(form, get_args(Form))}")
    if form == "merged" and rank is not None:
        raise UserError("a rank is an adapter's; a merged model has none: leave it out, or export an adapter.")
    if rank is not None and rank < 1:
        raise UserError(f"an adapter's rank must be at least 1, not {rank}.")
    target = Path(to).absolute()
    refuse_occupied(target)
    if everything:
        if method is not None or weights is not None or candidates or form == "merged":
            raise UserError("every candidate is exported as an adapter, so nothing else can be chosen beside --all.")
        form, finished = "vllm", open_trained(run)
        chosen = every(finished)
    else:
        finished = open_for_export(run)
        chosen = choose(finished, method, weights, candidates)
    if form != "vllm" and len(chosen) > 1:
        raise UserError(
            f"a{' merged model' if form == 'merged' else 'n adapter'} is one policy, and {len(chosen)} are named; "
            "export each to its own folder, or several with --format vllm."
        )
    with fresh_folder(target) as folder:
        return _Export(finished, chosen, form, rank, folder, target, progress or Progress()).made()


@dataclass(frozen=True)
class _Export:
    """One export on its way."""

    finished: Finished
    chosen: Sequence[Choice]
    form: Form
    rank: int | None
    folder: Path
    target: Path
    progress: Progress

    def made(self) -> Exported:
        """Write, check and describe."""
        origin = Origin.of(self.finished)
        policies = self._merged(origin) if self.form == "merged" else self._adapters(origin)
        for policy in policies:
            self._refuse_failed(policy)
        tell = partial(notes_on, origin=origin, rank=self.rank, measured=bool(self.finished.results["candidates"]))
        usage = write_cards(self.folder, self.target, self.form, self.finished, self.chosen, policies, origin, tell)
        files = tuple(path.relative_to(self.folder).as_posix() for path in files_below(self.folder))
        notes = tell(self.chosen, policies)
        if self._served_by_path():
            link_base(self.folder)
            notes = (*notes, LINKED)
        return Exported(self.target, self.form, files, policies, usage, notes)

    def _served_by_path(self) -> bool:
        """Whether the server that the run asks, ``transformers serve`` for one, takes folders of this export."""
        server = self.finished.plan.config.generation.endpoint
        return (
            self.form == "vllm"
            and server is not None
            and all(Path(server.model_of(choice.name)) == self.target / choice.name for choice in self.chosen)
        )

    def _adapters(self, origin: Origin) -> tuple[ExportedPolicy, ...]:
        """Write an adapter for each choice, then load all back on one base."""
        soup = self._soup(origin)
        rows = _held_out(self.finished, soup)
        base = soup_log_probs(soup, None, rows)
        written: list[tuple[Choice, int, Cut | None, Scores]] = []
        folders = [self.folder / choice.name if self.form == "vllm" else self.folder for choice in self.chosen]
        for choice, folder in zip(self.chosen, folders, strict=True):
            vector, lost, weights = self._vector(soup, choice)
            if self.form == "vllm":
                check_served_rank(choice.label, vector.rank)
            replace(vector, base=origin.path).save_pretrained(folder)
            if origin.revision is not None:
                _name_revision(folder, origin.revision)
            self._save_settings(soup, folder)
            written.append((choice, vector.rank, lost, soup_log_probs(soup, weights, rows)))
        del soup  # its memory is the plain model's turn
        self.progress.say("loading it back with plain transformers and PEFT …")
        found = []
        loaded = load_adapters(origin.path, folders, origin.device, **origin.options)
        for (choice, rank, lost, scores), model in zip(written, loaded, strict=True):
            check = compare(scores, base, plain_log_probs(model, rows), rows, TOLERANCE["float32"])
            found.append(_policy(choice, rank, check, lost))
        return tuple(found)

    def _merged(self, origin: Origin) -> tuple[ExportedPolicy, ...]:
        (choice,) = self.chosen
        soup = self._soup(origin)
        rows = _held_out(self.finished, soup)
        weights = _in_stack(choice)
        base, scores = soup_log_probs(soup, None, rows), soup_log_probs(soup, weights, rows)
        merge = Merge.of(soup, weights, origin.revision)
        self._save_settings(soup, self.folder)
        del soup  # writing needs the memory of one shard alone
        self.progress.say("writing the merged model …")
        merge.write(self.folder)
        self.progress.say("loading it back with plain transformers …")
        exact = base_dtype(merge.source) in (torch.float32, torch.float64)
        model = load_merged(self.folder, origin.device, origin.trust_remote_code)
        tolerance = TOLERANCE["float32" if exact else "16 bit"]
        return (_policy(choice, None, compare(scores, base, plain_log_probs(model, rows), rows, tolerance), None),)

    def _soup(self, origin: Origin) -> Soup:
        """Load the base in float32 with the vectors of every chosen method."""
        if origin.trust_remote_code:
            say_own_code([origin.path], self.progress)
        self.progress.say("loading the base and the vectors …")
        with quiet():
            model = load_model(origin.path, dtype="float32", device=origin.device, **origin.options)
            tokenizer = load_tokenizer(origin.path, **origin.options)
        adapters = {
            _stacked(choice.method, name): self.finished.artifacts[node.key].path / "adapter"
            for choice in self.chosen
            for name, node in self.finished.plan.recipes[choice.method].vectors.items()
        }
        return Soup.from_adapters(model, adapters, tokenizer)

    def _vector(self, soup: Soup, choice: Choice) -> tuple[ValueVector, Cut | None, dict[str, float]]:
        """Compose a choice, cut it where asked, and say at which weights the soup is the same policy."""
        weights = _in_stack(choice)
        exact = soup.adapter(weights)
        if self.rank is None or self.rank >= exact.rank:
            return exact, None, weights
        self.progress.say(f"cutting rank {exact.rank} to {self.rank} and measuring what that costs …")
        vector, error = cut(exact, self.rank)
        name = _stacked("cut of", choice.name)
        soup.add(name, vector)
        kl, prompts = cut_divergence(self.finished, soup, weights, {name: 1.0})
        return vector, Cut(exact.rank, error, kl, prompts), {name: 1.0}

    def _save_settings(self, soup: Soup, folder: Path) -> None:
        """Write the tokenizer, and generation settings under which the policy answers as it was measured."""
        assert soup.tokenizer is not None
        soup.tokenizer.save_pretrained(folder)
        settings, of = copy.deepcopy(soup.model.generation_config), self.finished.plan.config.generation
        drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
        if of.temperature > 0:
            drawn = {"do_sample": True, "temperature": of.temperature, "top_k": 0, "top_p": 1.0}
        settings._from_model_config = False  # else transformers may replace it by what the configuration says
        settings.update(**drawn, max_new_tokens=of.max_new_tokens, pad_token_id=soup.tokenizer.pad_token_id)
        settings.save_pretrained(folder)

    def _refuse_failed(self, policy: ExportedPolicy) -> None:
        check = policy.check
        if check.passed:
            return
        kept = self.target.with_name(f"{self.target.name}.failed-check")
        if kept.is_dir():
            shutil.rmtree(kept)
        self.folder.rename(kept)
        raise RunError(
            f"the export of {policy.candidate} does not answer as the Soup does: loaded back, the log-probabilities of "
            f"{check.responses} held-out responses differ by up to {check.max:.2g} nats per token, and "
            f"{check.tolerance:g} is allowed; it is kept in {kept} to be looked at."
        )


def _name_revision(folder: Path, revision: str) -> None:
    """Let PEFT's AutoPeftModel load the base at the revision that the vectors were trained on."""
    from peft import LoraConfig

    config = LoraConfig.from_pretrained(str(folder))
    config.revision = revision
    config.save_pretrained(str(folder))


def _held_out(finished: Finished, soup: Soup) -> HeldOut:
    assert soup.tokenizer is not None
    return held_out(finished, soup.tokenizer, position_limit(soup.model.config))


def _stacked(method: str, vector: str) -> str:
    """Return the name of a method's vector in a stack of several methods'; such a name holds no dot."""
    return f"{method}/{vector}".replace(".", "·")


def _in_stack(choice: Choice) -> dict[str, float]:
    return {_stacked(choice.method, name): weight for name, weight in choice.row.items()}


def _policy(choice: Choice, rank: int | None, check: Check, lost: Cut | None) -> ExportedPolicy:
    return ExportedPolicy(choice.name, choice.label, choice.method, choice.weights, rank, check, lost)
