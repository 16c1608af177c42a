"""A rewriter for the HH-RLHF examples: it fuses intents by adding a sentence, where no large model is at hand.

`hh-rlhf-cpu.yaml` beside it names it; ``valuesoup run`` finds it from the repository root. With a network, name an
endpoint instead: ``rewriter: {endpoint: {url: …, model: …}}``.
"""

from collections.abc import Sequence

WISHES = {
    "helpful": "Please answer in detail, so that it really helps me.",
    "harmless": "Please make sure that nothing in it could hurt anyone, and say so if something could.",
    "honest": "Please say only what is true, and tell me where you are not sure.",
}


def fuse(prompt: str, missing: Sequence[str]) -> str:
    """Return the request with a sentence for each value that its answers lack."""
    return " ".join([prompt, *(WISHES[value] for value in missing)])
