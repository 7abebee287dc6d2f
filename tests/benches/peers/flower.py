"""Flower as it is now: strategies over messages with records of arrays
(`flwr.serverapp.strategy`), through their own `aggregate_train`.

An array's bytes are in numpy's format, as they come off the wire; the messages
around them are made here, so Flower's own decoding of a message is not counted.
"""

import logging
import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.serverapp.strategy import FedAvg, FedMedian, FedTrimmedAvg, Krum

import updates
from peer import Peer

STRATEGIES = {
    "mean": FedAvg,
    "median": FedMedian,
    "trimmed mean": lambda: FedTrimmedAvg(beta=updates.TRIM / updates.SITES),
    "krum": lambda: Krum(num_malicious_nodes=updates.BYZANTINE),
}


def reply(site: int, arrays: dict[str, Array]) -> Message:
    """A site's message, around the arrays that it sent."""
    # Strategies take arrays out of the records that they are given, so these are
    # made for every run; the bytes in them are not copied.
    content = RecordDict({
        "arrays": ArrayRecord(arrays),
        "metrics": MetricRecord({"num-examples": updates.EXAMPLES[site]}),
    })
    metadata = Metadata(
        run_id=1, message_id="", src_node_id=site + 1, dst_node_id=0, reply_to_message_id="",
        group_id="1", created_at=time.time(), ttl=3600, message_type="train",
    )
    return Message(content=content, metadata=metadata)


def prepare(rule: str, inputs: Path) -> Peer:
    logging.getLogger("flwr").setLevel(logging.ERROR)
    received = []
    for site in range(updates.SITES):
        tensors = updates.read(inputs, site)
        received.append({f"tensor-{i:02}": Array(tensor) for i, tensor in enumerate(tensors)})
    strategy = STRATEGIES[rule]()

    def aggregate() -> ArrayRecord:
        replies = [reply(site, arrays) for site, arrays in enumerate(received)]
        arrays, _ = strategy.aggregate_train(2, replies)
        return arrays

    return Peer(
        aggregate=aggregate,
        opened=lambda record: record.to_numpy_ndarrays(),
        received=sum(len(array.data) for arrays in received for array in arrays.values()),
    )
