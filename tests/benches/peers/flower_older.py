"""Flower's older strategies (`flwr.server.strategy`), through their own
`aggregate_fit`, from each array's bytes in numpy's format as they come off the
wire."""

import logging
from pathlib import Path

from flwr.common import (
    Code,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum

import updates
from peer import Peer

STRATEGIES = {
    "mean": FedAvg,
    "median": FedMedian,
    "trimmed mean": lambda: FedTrimmedAvg(beta=updates.TRIM / updates.SITES),
    "krum": lambda: Krum(num_malicious_clients=updates.BYZANTINE),
}


def prepare(rule: str, inputs: Path) -> Peer:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    received = []
    for site in range(updates.SITES):
        parameters = ndarrays_to_parameters(updates.read(inputs, site))
        examples = updates.EXAMPLES[site]
        received.append((None, FitRes(Status(Code.OK, ""), parameters, examples, {})))
    strategy = STRATEGIES[rule]()

    def aggregate() -> Parameters:
        parameters, _ = strategy.aggregate_fit(2, received, [])
        return parameters

    return Peer(
        aggregate=aggregate,
        opened=parameters_to_ndarrays,
        received=sum(len(data) for _, site in received for data in site.parameters.tensors),
    )
