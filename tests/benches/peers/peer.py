"""What every peer here offers to be measured."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Peer:
    """A peer whose received bytes lie ready."""

    # From the bytes as received to the aggregate: what is measured.
    aggregate: Callable[[], Any]
    # The aggregate's tensors in order, for the check; not measured.
    opened: Callable[[Any], list]
    # How many bytes of this process's memory are the received updates.
    received: int
    # How many times more work the whole is, where only a part of it is done.
    scale: float = 1.0
