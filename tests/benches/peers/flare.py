"""NVIDIA FLARE: its serialisation (FOBS) is decoded and its helper adds each
update up as it comes. It has a weighted mean and no rule that is robust.

FLARE's jobs, its controller and its streaming of large arrays are not counted.
"""

from pathlib import Path

from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper
from nvflare.app_common.decomposers import numpy_decomposers
from nvflare.fuel.utils import fobs

import updates
from peer import Peer


def prepare(rule: str, inputs: Path) -> Peer:
    if rule != "mean":
        raise SystemExit(f"NVIDIA FLARE has the rule mean, not {rule}")
    numpy_decomposers.register()
    received = []
    for site in range(updates.SITES):
        tensors = updates.read(inputs, site)
        received.append(fobs.dumps({f"tensor-{i:02}": t for i, t in enumerate(tensors)}))

    def aggregate() -> dict:
        helper = WeightedAggregationHelper()
        for site, data in enumerate(received):
            helper.add(fobs.loads(data), updates.EXAMPLES[site], f"site-{site}", 1)
        return helper.get_result()

    return Peer(
        aggregate=aggregate,
        opened=lambda result: [result[name] for name in sorted(result)],
        received=sum(map(len, received)),
    )
