"""A deep zero-inflated log-normal network in plain NumPy (Wang, Liu & Miao 2019, "A Deep Probabilistic Model for Customer
Lifetime Value Prediction", arXiv:1912.07753).

One network says for each customer the probability p of buying and the mean μ and deviation σ of the log of what is spent
then. Its loss is the negative log-likelihood (eq. 4 of the paper): cross entropy of buying, and of who bought the log-normal
density. Expected spend is p · exp(μ + σ²/2).
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from benchmarks.peers import Peer, Question
from benchmarks.public_data import FloatArray
from benchmarks.scores import Answer
from ml_pipeline.metrics import d2

LAYERS = (64, 32)
OUTPUTS = 3
BATCH = 512
LEARNING_RATE = 5e-4
WEIGHT_DECAY = 1e-2
ROUND_STEPS = 100
MOST_ROUNDS = 60
PATIENCE = 15
SEEDS = (1, 2, 3, 4)
SIGMA_FLOOR = 0.05
LOG_LIMIT = 12.0

Weights = list[tuple[FloatArray, FloatArray]]


@dataclass
class Adam:
    """Adam (Kingma & Ba 2015) with decoupled weight decay on matrices; changes the weights in place."""

    weights: Weights
    step: int = 0
    first: list[FloatArray] = field(default_factory=list)
    second: list[FloatArray] = field(default_factory=list)

    def update(self, gradients: Weights) -> None:
        """One step down the gradient."""
        parameters = [array for pair in self.weights for array in pair]
        slopes = [array for pair in gradients for array in pair]
        if not self.first:
            self.first, self.second = [np.zeros_like(p) for p in parameters], [np.zeros_like(p) for p in parameters]
        self.step += 1
        for parameter, slope, first, second in zip(parameters, slopes, self.first, self.second, strict=True):
            first += 0.1 * (slope - first)
            second += 0.001 * (slope * slope - second)
            corrected = first / (1 - 0.9**self.step)
            scale = np.sqrt(second / (1 - 0.999**self.step)) + 1e-8
            decay = WEIGHT_DECAY * parameter if parameter.ndim == 2 else 0.0
            parameter -= LEARNING_RATE * (corrected / scale + decay)


def start_weights(columns: int, spend: FloatArray, seed: int) -> Weights:
    """Layers (inputs, outputs) after He et al. (2015); the last starts as what is true of everyone's spend."""
    random = np.random.default_rng(seed)
    weights = [
        (random.normal(0, np.sqrt(2 / inputs), (inputs, outputs)), np.zeros(outputs))
        for inputs, outputs in pairwise((columns, *LAYERS, OUTPUTS))
    ]
    logs, share = np.log(spend[spend > 0]), float(np.mean(spend > 0))
    everyone = [np.log(share / (1 - share)), logs.mean(), np.log(np.expm1(logs.std()))]
    weights[-1] = (weights[-1][0] * 0.1, np.array(everyone))
    return weights


def run_network(weights: Weights, inputs: FloatArray) -> list[FloatArray]:
    """The activations of every layer, the inputs first; the last are the three outputs (n, 3)."""
    layers = [inputs]
    for index, (matrix, offset) in enumerate(weights):
        linear = layers[-1] @ matrix + offset
        layers.append(linear if index == len(weights) - 1 else np.maximum(linear, 0.0))
    return layers


def loss_and_slope(outputs: FloatArray, spend: FloatArray) -> tuple[float, FloatArray]:
    """Mean negative log-likelihood and its derivative by the outputs (n, 3): logit of p, μ, and σ before softplus."""
    logit, mean, raw = outputs.T
    bought = (spend > 0).astype(np.float64)
    log_spend = np.log(np.where(spend > 0, spend, 1.0))
    sigma, sigma_slope = softplus(raw) + SIGMA_FLOOR, sigmoid(raw)
    error = (log_spend - mean) / sigma
    density = np.log(sigma) + error**2 / 2 + log_spend + np.log(2 * np.pi) / 2
    loss = softplus(logit) - bought * logit + bought * density
    slope = np.stack([sigmoid(logit) - bought, -bought * error / sigma, bought * (1 - error**2) / sigma * sigma_slope])
    return float(loss.mean()), slope.T / len(spend)


def gradients_of(weights: Weights, inputs: FloatArray, spend: FloatArray) -> tuple[float, Weights]:
    """The loss of these rows and its gradient by all weights."""
    layers = run_network(weights, inputs)
    loss, slope = loss_and_slope(layers[-1], spend)
    gradients: Weights = []
    for (matrix, _), below in zip(reversed(weights), reversed(layers[:-1]), strict=True):
        gradients.append((below.T @ slope, slope.sum(axis=0)))
        slope = (slope @ matrix.T) * (below > 0)
    return loss, gradients[::-1]


def softplus(value: FloatArray) -> FloatArray:
    """log(1 + exp(value)) without overflow."""
    return np.logaddexp(0.0, value)


def sigmoid(value: FloatArray) -> FloatArray:
    """1 / (1 + exp(-value)) without overflow."""
    return 0.5 * (1 + np.tanh(value / 2))


def expected_spend(outputs: FloatArray, most: float) -> tuple[FloatArray, FloatArray]:
    """p · exp(μ + σ²/2), at most `most`, and p, each (n,)."""
    logit, mean, raw = outputs.T
    sigma = softplus(raw) + SIGMA_FLOOR
    amount = np.exp(np.minimum(mean + sigma**2 / 2, LOG_LIMIT))
    probability = sigmoid(logit)
    return np.minimum(probability * amount, most), probability


@dataclass(frozen=True)
class Scale:
    """Logs of the columns (all of them are >= 0), standardised; learned on the training rows."""

    mean: FloatArray
    deviation: FloatArray

    @classmethod
    def of(cls, features: FloatArray) -> "Scale":
        """The scale of these rows."""
        logs = np.log1p(np.maximum(features, 0.0))
        return cls(logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-6))

    def apply(self, features: FloatArray) -> FloatArray:
        """The inputs of the network, within 5 deviations."""
        return np.clip((np.log1p(np.maximum(features, 0.0)) - self.mean) / self.deviation, -5.0, 5.0)


class Training:
    """A network in training on rows (inputs, spend), a random batch per step."""

    def __init__(self, inputs: FloatArray, spend: FloatArray, seed: int) -> None:
        self.inputs, self.spend = inputs, spend
        self.adam = Adam(start_weights(inputs.shape[1], spend, seed))
        self.random = np.random.default_rng(seed)

    def run_round(self) -> None:
        """ROUND_STEPS steps."""
        for _ in range(ROUND_STEPS):
            rows = self.random.integers(0, len(self.spend), BATCH)
            self.adam.update(gradients_of(self.adam.weights, self.inputs[rows], self.spend[rows])[1])

    def outputs(self, inputs: FloatArray) -> FloatArray:
        """What the network says of other rows, (n, 3)."""
        return run_network(self.adam.weights, inputs)[-1]


def best_rounds(training: Training, inputs: FloatArray, spend: FloatArray, most: float) -> int:
    """After how many rounds of training the expected spend explained most deviance of these rows, later ones.

    The likelihood alone stops where the tail of the log-normal still makes the money too much.
    """
    explained: list[float] = []
    while len(explained) < MOST_ROUNDS and len(explained) - int(np.argmax(explained or [0.0])) <= PATIENCE:
        training.run_round()
        value = d2(spend, expected_spend(training.outputs(inputs), most)[0])
        explained.append(-np.inf if value is None else value)
    return int(np.argmax(explained)) + 1


def predict(question: Question) -> Answer:
    """The mean of a few networks, each stopped on the latest window and then fitted on all of them."""
    learning = question.learning
    scale = Scale.of(learning.features)
    inputs, asked = scale.apply(learning.features), scale.apply(question.features)
    earlier, latest = learning.earlier, learning.latest
    most = float(learning.spend.max())
    told: list[tuple[FloatArray, FloatArray]] = []
    for seed in SEEDS:
        tried = Training(inputs[earlier], learning.spend[earlier], seed)
        rounds = best_rounds(tried, inputs[latest], learning.spend[latest], most)
        best = Training(inputs, learning.spend, seed)
        for _ in range(rounds):
            best.run_round()
        told.append(expected_spend(best.outputs(asked), most))
    predicted: npt.NDArray[np.float64] = np.mean([spend for spend, _ in told], axis=0)
    return Answer(predicted, np.mean([probability for _, probability in told], axis=0))


ZERO_INFLATED_LOG_NORMAL = Peer(
    "zero_inflated_log_normal",
    "deep zero-inflated log-normal",
    predict,
    sources=("peer_zero_inflated_log_normal.py",),
)
