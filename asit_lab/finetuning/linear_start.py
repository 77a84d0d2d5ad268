"""Starts the head of fine-tuning as a linear probe that is fitted on the training clips.

From a random head, the first steps of fine-tuning distort the pretrained features; from a fitted one, training starts
at the probe's score (Kumar et al., arXiv 2202.10054).
"""

import torch
from torch import Tensor

from ..evaluation.classifiers import answers
from .network import ClassifierNetwork

STRENGTH = 0.01  # C of the regression; chosen inside training folds (docs/recipes.md)


def fit_head(network: ClassifierNetwork, statistics: Tensor, targets: Tensor, multi: bool) -> None:
    """Set a head=mean+std to the logistic regression on windows of the training clips.

    statistics: float [windows, P], what `network.statistics` gives; targets: 0/1 [windows, K].
    """
    inputs = statistics.double().cpu().numpy()
    (answer,) = answers("linear", inputs, targets.double().cpu().numpy(), inputs[:1], (STRENGTH,), multi)
    standardise(network, statistics)
    state = network.state_dict()
    # The network's features are divided by the root of their number.
    state["linear.weight"].copy_(torch.from_numpy(inputs.shape[1] ** 0.5 * answer.head.weights.T))
    state["linear.bias"].copy_(torch.from_numpy(answer.head.intercepts))


def standardise(network: ClassifierNetwork, statistics: Tensor) -> None:
    """Set what a head=mean+std standardises by to mean and deviation of the statistics [windows, P].

    Averaged weights need their own, as batch normalisation does (Izmailov et al., arXiv 1803.05407, section 3.2).
    """
    values = statistics.double()
    mean, deviation = values.mean(0), values.std(0, correction=0)
    network.center.copy_(mean)
    network.deviation.copy_(torch.where(deviation > 1e-8 * mean.abs(), deviation, 1.0))  # 1 for a constant one
