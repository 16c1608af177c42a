"""A base that no GPU holds whole: each process of a team keeps a part of every decoder layer (FSDP2)."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from valuesoup.errors import UserError
from valuesoup.store.team import Team

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_divided(
    base: str | Path,
    load: "Callable[[], PreTrainedModel]",
    device: str,
    team: Team,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> "PreTrainedModel":
    """Load a base of which each process keeps a part, gathered layer by layer where it is computed.

    Only the leader reads the weights, into main memory, and hands them out layer by layer, so that main memory holds
    them once and a GPU never more than one whole layer. Embeddings, norms outside the layers and the output head are
    whole in every process.

    Args:
        base: Hub id or folder.
        load: Loads the model into main memory; only the leader calls it.
        device: Where to compute.
        team: This process and the others.
        revision: Hub revision.
        trust_remote_code: Run code that comes with the model.

    Raises:
        UserError: The base does not load, or does not say what its decoder layers are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = load() if team.leads else _skeleton(base, revision, trust_remote_code)
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in kinds]
    if not layers:
        raise UserError(
            f"base '{base}' does not say which of its modules are decoder layers, so it cannot be divided among "
            "processes; start them without FSDP or ZeRO-3."
        )
    hand_out = _Hands(model, torch.device(device), team)
    mesh = init_device_mesh(torch.device(device).type, (team.size,))
    divided: set[nn.Module] = set()
    for layer in layers:
        for module in layer.modules():
            hand_out(module)
            divided.add(module)
        fully_shard(layer, mesh=mesh)
    for module in model.modules():
        if module not in divided:
            hand_out(module)
    # The layers need a root to gather one ahead of time; what is not theirs stays whole.
    inside = {parameter for layer in layers for parameter in layer.parameters()}
    fully_shard(model.base_model, mesh=mesh, ignored_params=set(model.parameters()) - inside)
    return model.requires_grad_(False).eval()


def _skeleton(base: str | Path, revision: str | None, trust_remote_code: bool) -> "PreTrainedModel":
    """Return the model without weights."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(base), revision=revision, trust_remote_code=trust_remote_code)
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    model.config._name_or_path = str(base)
    return model


class _Hands:
    """Gives every process the leader's parameters and buffers of a module, one that is used twice only once."""

    def __init__(self, model: nn.Module, device: torch.device, team: Team) -> None:
        self._device = device
        self._leads = team.leads
        self._given: dict[Tensor, nn.Parameter] = {}
        box = [{name: p.dtype for name, p in model.state_dict(keep_vars=True).items()} if team.leads else None]
        dist.broadcast_object_list(box, src=0)
        names = {tensor: name for name, tensor in model.state_dict(keep_vars=True).items()}
        assert box[0] is not None
        self._dtypes = {tensor: box[0][name] for tensor, name in names.items()}

    def __call__(self, module: nn.Module) -> None:
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in self._given:
                whole = self._whole(parameter, self._dtypes[parameter])
                self._given[parameter] = nn.Parameter(whole, requires_grad=False)
            module.register_parameter(name, self._given[parameter])
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = self._whole(buffer, self._dtypes.get(buffer, buffer.dtype))

    def _whole(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        if self._leads:
            whole = tensor.detach().to(self._device).contiguous()
        else:
            whole = torch.empty(tensor.shape, dtype=dtype, device=self._device)
        dist.broadcast(whole, src=0)
        return whole
