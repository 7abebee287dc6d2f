"""The updates that all aggregate, and what each rule must make of them."""

from pathlib import Path

import numpy as np

SITES = 10
# As a model has it: several tensors, here of equal size.
TENSORS = 50
COLUMNS = 1000
# Each site's weight.
EXAMPLES = [100 + 20 * site for site in range(SITES)]
# The same in whole numbers as small as they can be, for our manifest.
WEIGHTS = [count // 20 for count in EXAMPLES]
# The limit on an update's norm, which is about 6000, and the step that follows from
# it and the weights: all aggregate the same values, those that a site of ours sends.
LIMIT = 8192.0
STEP = 2.0**-11
# Values that the trimmed mean leaves out at each end, and updates that Krum
# takes for hostile.
TRIM = 2
BYZANTINE = 2
# Values that are worked on at once where the whole would not fit a cache.
BLOCK = 1 << 16


def path(folder: Path, site: int) -> Path:
    """Where a site's update lies: little-endian float32, nothing else."""
    return folder / f"site-{site:02}.f32"


def make(folder: Path, parameters: int) -> None:
    """Writes the updates: a direction that the sites share, and noise of
    different strength, so that Krum's choice does not hang on rounding."""
    shared = np.random.default_rng(2026).standard_normal(parameters, np.float32) / 2
    for site in range(SITES):
        noise = np.random.default_rng(site).standard_normal(parameters, np.float32)
        noise *= 1 + abs(site - 3) / 20
        noise += shared
        noise = np.rint(noise / np.float32(STEP)) * np.float32(STEP)
        noise.astype("<f4", copy=False).tofile(path(folder, site))


def read(folder: Path, site: int) -> list[np.ndarray]:
    """A site's update as its tensors."""
    values = np.fromfile(path(folder, site), "<f4")
    return list(values.reshape(TENSORS, -1, COLUMNS))


def shares() -> list[float]:
    """Each site's share of the weights."""
    return [count / sum(EXAMPLES) for count in EXAMPLES]


def krum(distances: np.ndarray) -> int:
    """The update with the smallest sum of squared distances to its n - f - 2
    closest neighbours (Blanchard et al., 2017)."""
    closest = np.sort(distances, axis=1)[:, 1 : SITES - BYZANTINE - 1]
    return int(closest.sum(axis=1).argmin())


def expected(folder: Path, rule: str, target: Path) -> None:
    """Writes a rule's aggregate, calculated in float64."""
    sites = [np.memmap(path(folder, site), "<f4", "r") for site in range(SITES)]
    blocks = range(0, sites[0].size, BLOCK)

    def block(start: int) -> np.ndarray:
        return np.stack([site[start : start + BLOCK] for site in sites]).astype(np.float64)

    if rule == "krum":
        gram = np.zeros((SITES, SITES))
        for start in blocks:
            values = block(start)
            gram += values @ values.T
        norms = gram.diagonal()
        sites[krum(norms[:, None] + norms - 2 * gram)].tofile(target)
        return
    combine = {
        "mean": lambda values: np.array(shares()) @ values,
        "median": lambda values: np.median(values, axis=0),
        "trimmed mean": lambda values: np.sort(values, axis=0)[TRIM:-TRIM].mean(axis=0),
    }[rule]
    with target.open("wb") as file:
        for start in blocks:
            combine(block(start)).astype("<f4").tofile(file)


def difference(found: Path, wanted: Path, part: float) -> float:
    """The largest difference between an aggregate and what it must be; infinite
    if it does not have as many values as that part of the whole."""
    one, other = (np.memmap(file, "<f4", "r") for file in (found, wanted))
    if one.size != round(part * other.size):
        return float("inf")
    blocks = (slice(start, start + BLOCK) for start in range(0, one.size, BLOCK))
    # numpy's maximum, because Python's may pass over what is not a number.
    return float(np.max([np.abs(one[b] - other[: one.size][b]).max() for b in blocks]))
