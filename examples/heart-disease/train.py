"""The outline of a trainer in Python, for `sealfold run --train "python train.py"`.

Needs numpy and safetensors. Not run by the tests; src/train.rs is what the demo
uses. Replace `gradient` by your own model's training.
"""

import json
import os

import numpy as np
from safetensors.numpy import load_file, save_file


def gradient(weight, bias, inputs, disease):
    """The mean gradient of the logistic loss."""
    error = 1 / (1 + np.exp(-(inputs @ weight + bias))) - disease
    return inputs.T @ error / len(disease), error.mean()


def loss(model, inputs, disease):
    """The mean logistic loss of the replicas."""
    logits = inputs @ model["weight"].astype(np.float64).T + model["bias"]
    return float(np.mean(np.logaddexp(0, logits) - disease[:, None] * logits))


def main():
    model = load_file(os.environ["SEALFOLD_MODEL"])
    # Your own data: one row a patient, the study's inputs in its columns.
    inputs, disease = np.load("inputs.npy"), np.load("disease.npy")
    trained = {name: tensor.astype(np.float64) for name, tensor in model.items()}
    for replica in range(len(trained["bias"])):
        for _ in range(8):
            weight, bias = gradient(
                trained["weight"][replica], trained["bias"][replica], inputs, disease
            )
            trained["weight"][replica] -= 0.3 * weight
            trained["bias"][replica] -= 0.3 * bias
    update = {
        name: np.ascontiguousarray((trained[name] - model[name]).astype(np.float32))
        for name in model
    }
    save_file(update, os.environ["SEALFOLD_UPDATE"])
    # The study's metric, of the model that the round began with. In the round
    # after the last training round there is nothing else to do.
    with open(os.environ["SEALFOLD_METRICS"], "w") as file:
        json.dump({"loss": loss(model, inputs, disease)}, file)


if __name__ == "__main__":
    main()
