"""Sets of named tensors: gathered under one roof, taken apart again, and copied where they belong."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def under(roof: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`{"a": …}` as `{"roof.a": …}`."""
    return {f"{roof}.{name}": tensor for name, tensor in tensors.items()}


def part(roof: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: those under `roof`, without it."""
    start = f"{roof}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def fill(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    """Copies every source into the target of its name, in place, to whatever device it is on.

    Raises ValueError unless names, shapes and types are the same: nothing is broadcast or rounded.
    """
    if targets.keys() != sources.keys():
        raise ValueError(f"these tensors differ: {sorted(targets.keys() ^ sources.keys())}")
    for name, target in targets.items():
        source = sources[name]
        if (target.shape, target.dtype) != (source.shape, source.dtype):
            raise ValueError(f"{name} is {source.dtype} {list(source.shape)}")
        target.detach().copy_(source)
