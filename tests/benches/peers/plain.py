"""numpy with no framework around it: raw values, taken from memory-mapped files
without a copy, in blocks that stay in the cache.

Each rule is made of numpy's own functions, applied to one block after the
other.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import updates
from peer import Peer

# Values of each site in a block: of all sites together, they fit a core's cache
# beside what the rule needs for itself.
BLOCK = 1 << 14


def mean(sites: list[np.ndarray], out: np.ndarray) -> None:
    shares = [np.float32(share) for share in updates.shares()]
    scaled = np.empty(updates.BLOCK, np.float32)
    for start in range(0, out.size, updates.BLOCK):
        part = slice(start, start + updates.BLOCK)
        target = out[part]
        np.multiply(sites[0][part], shares[0], out=target)
        for site, share in zip(sites[1:], shares[1:]):
            product = scaled[: target.size]
            np.multiply(site[part], share, out=product)
            np.add(target, product, out=target)


def blocks(sites: list[np.ndarray]):
    """Each block of all sites, in one reused array of shape (sites, values)."""
    room = np.empty((len(sites), BLOCK), np.float32)
    for start in range(0, sites[0].size, BLOCK):
        block = room[:, : min(BLOCK, sites[0].size - start)]
        np.stack([site[start : start + BLOCK] for site in sites], out=block)
        yield slice(start, start + BLOCK), block


def middle(sites: list[np.ndarray], out: np.ndarray, trim: int) -> None:
    """The mean without the lowest and highest values. Sorting a block takes half
    the time of `np.median` or `np.partition` of it, so this stands for both."""
    for part, block in blocks(sites):
        block.sort(axis=0)
        np.mean(block[trim : len(sites) - trim], axis=0, out=out[part])


def median(sites: list[np.ndarray], out: np.ndarray) -> None:
    middle(sites, out, (len(sites) - 1) // 2)


def trimmed_mean(sites: list[np.ndarray], out: np.ndarray) -> None:
    middle(sites, out, updates.TRIM)


def krum(sites: list[np.ndarray], out: np.ndarray) -> None:
    gram = np.zeros((len(sites), len(sites)))
    for _, block in blocks(sites):
        gram += block @ block.T
    norms = gram.diagonal()
    np.copyto(out, sites[updates.krum(norms[:, None] + norms - 2 * gram)])


RULES: dict[str, Callable[[list[np.ndarray], np.ndarray], None]] = {
    "mean": mean,
    "median": median,
    "trimmed mean": trimmed_mean,
    "krum": krum,
}


def prepare(rule: str, inputs: Path) -> Peer:
    paths = [updates.path(inputs, site) for site in range(updates.SITES)]
    # An array for each file, and not numpy's subclass for maps, which is slow.
    sites = [np.asarray(np.memmap(path, "<f4", "r")) for path in paths]
    # Every page is mapped, so that it counts as received and not as added.
    for site in sites:
        site[::1024].max()

    def aggregate() -> np.ndarray:
        out = np.empty_like(sites[0])
        RULES[rule](sites, out)
        return out

    return Peer(
        aggregate=aggregate,
        opened=lambda out: [out],
        received=sum(site.nbytes for site in sites),
    )
