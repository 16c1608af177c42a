"""The Soup: value vectors, their weighted blocks in one LoRA, exact composition, geometry, generation."""

from valuesoup.soup.base import load_model, load_tokenizer, position_limit, target_layers
from valuesoup.soup.composition import compose, cut
from valuesoup.soup.geometry import LayerGeometry, geometry
from valuesoup.soup.soup import Soup, SoupLinear, take_apart
from valuesoup.soup.vector import Factors, ValueVector

__all__ = [
    "Factors",
    "LayerGeometry",
    "Soup",
    "SoupLinear",
    "ValueVector",
    "compose",
    "cut",
    "geometry",
    "load_model",
    "load_tokenizer",
    "position_limit",
    "take_apart",
    "target_layers",
]
