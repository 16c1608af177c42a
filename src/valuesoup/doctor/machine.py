"""What this machine has: packages, processors, memory, disks, and whether the hub may be asked."""

import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path

from valuesoup.doctor.report import Disk, Gpu, Machine, Package
from valuesoup.pipeline.environment import installed_version
from valuesoup.pipeline.run import cache_folder
from valuesoup.store import usable_cpus

PACKAGES = ("valuesoup", "torch", "transformers", "peft", "trl", "accelerate", "datasets")
OPTIONAL = {
    "openai": "endpoints: a judge, or MORA's rewriter",
    "gradio": "valuesoup explore",
    "ray": "several machines",
    "bitsandbytes": "base.quantize",
}
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_USES = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def look_at_machine(run: Path | None = None) -> Machine:
    """Return what this machine has.

    Args:
        run: The folder of a run whose disk is of interest.
    """
    total, free = memory()
    packages = [Package(name, installed_version(name), f"pip install {name}") for name in PACKAGES]
    packages += [Package(name, installed_version(name), _how(name), purpose) for name, purpose in OPTIONAL.items()]
    try:
        load = os.getloadavg()[0]
    except (OSError, AttributeError):  # not on every system
        load = None
    return Machine(
        python=platform.python_version(),
        packages=tuple(packages),
        cpus=usable_cpus(),
        load=load,
        memory=total,
        memory_free=free,
        gpus=_gpus(),
        disks=_disks(run),
        hub_offline=hub_offline(),
    )


def memory() -> tuple[int | None, int | None]:
    """Return the bytes of RAM and those free now, within the container's limit; None where the system is silent."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        found = {name: int(size) * 1024 for name, size in re.findall(r"(\w+):\s+(\d+) kB", text)}
        total, free = found["MemTotal"], found["MemAvailable"]
    except (OSError, KeyError):
        try:
            return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), None
        except (ValueError, OSError, AttributeError):
            return None, None
    limit, used = _number(_LIMITS), _number(_USES)
    if limit is not None and limit < total:
        return limit, min(free, max(limit - (used or 0), 0))
    return total, free


def hub_offline() -> bool:
    """Return whether the environment forbids to ask the hub (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def free_bytes(folder: Path) -> int:
    """Return the bytes free on the disk of a folder, which need not exist yet."""
    folder = folder.resolve()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def hub_cache() -> Path:
    """Return the folder into which the hub's models are downloaded."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _number(files: tuple[str, ...]) -> int | None:
    for file in files:
        try:
            return int(Path(file).read_text(encoding="ascii"))
        except (OSError, ValueError):  # another system, or "max"
            continue
    return None


def _how(name: str) -> str:
    """Return the command that installs an optional package: the extra that asks for it, where there is one."""
    try:
        needed = metadata.requires("valuesoup") or []
    except metadata.PackageNotFoundError:
        needed = []
    for line in needed:
        extra = re.search(r"extra == [\"']([^\"']+)", line)
        if re.match(rf"{name}\b", line) and extra and extra[1] != "dev":
            return f"pip install 'valuesoup[{extra[1]}]'"
    return f"pip install {name}"


def _gpus() -> tuple[Gpu, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    bf16 = bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = []
    for place in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(place)
        found.append(Gpu(torch.cuda.get_device_name(place), total, free, bf16))
    return tuple(found)


def _disks(run: Path | None) -> tuple[Disk, ...]:
    folders = {"hub cache": hub_cache(), "valuesoup's cache": cache_folder()}
    if run is not None:
        folders["run folder"] = run
    return tuple(Disk(what, str(folder), free_bytes(folder)) for what, folder in folders.items())
