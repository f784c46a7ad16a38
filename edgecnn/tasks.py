"""Tasks: what the labels mean, and how the outputs of a model are scored.

A score is a mean over the samples, at most 1, and higher is better. Each sample has a *credit*, and the mean of the
credits is the score. So the scores of two files on the same samples differ by the mean of the differences of their
credits, which has a paired interval, whatever the metric.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import ConfigError, DataError, one_line
from edgecnn.records import Accuracy, TaskName
from edgecnn.samples import by_name

Float = NDArray[np.float32]
Credits = NDArray[np.float64]
Metric = Callable[[Any, Any], Any]
T = TypeVar("T")

_SHARES = ("accuracy", "label accuracy", "mIoU", "top-5 accuracy", "pixel accuracy", "AUC")

_RESAMPLES = 1000
_GROUPS = 20
_TOP, _MANY_CLASSES = 5, 20
# Outputs between these are taken as probabilities, others as logits; resizing and rounding may overshoot 0 and 1.
_PROBABILITIES = -0.05, 1.05


@dataclass(frozen=True, eq=False)
class Scoring:
    """The labels of some samples, and how outputs ``(n, values)`` for these samples are scored.

    ==============  ==========================  ======================================
    task            labels                      score
    ==============  ==========================  ======================================
    classification  int64 ``(n,)``              share of right classes
    multilabel      int64 ``(n, labels)``, 0/1  share of right labels
    segmentation    int64 ``(n, h, w)``         mean intersection over union (mIoU)
    regression      float32 ``(n, …)``          R², the mean over the outputs
    reconstruction  float32 ``(n, …)``: inputs  R² over all values, or, with
                                                ``anomalies``, the AUC of the error
    custom          any numbers ``(n, …)``      ``measure``
    several         one field for each output   the mean over the outputs
    ==============  ==========================  ======================================

    A class is the highest of several outputs, the first one in a tie. With one output per decision, the positive class
    is decided at a probability of 0.5, or at 0 if the outputs are logits, which reach beyond 0…1.

    ``measure``, a function of the user's, replaces the score of any task. It takes labels and outputs and returns a
    number for each sample, or one for all, at most 1; higher is better. Of several outputs, it takes a dictionary of
    arrays ``(n, …)`` by name.

    ``layout`` has the names and sample shapes of several outputs, whose values are one after the other in ``outputs``;
    ``of_outputs`` is how each is scored, by name.

    Credits and scores are computed once for equal outputs: metrics of users and resampling take long.
    """

    task: TaskName
    labels: NDArray[Any]
    classes: int = 0
    anomalies: NDArray[np.int64] | None = None
    measure: Metric | None = None
    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()
    of_outputs: Mapping[str, "Scoring"] = field(default_factory=dict)
    _credits: dict[bytes, Credits] = field(init=False, repr=False, default_factory=dict)
    _scores: dict[bytes, Accuracy] = field(init=False, repr=False, default_factory=dict)

    def first(self, count: int) -> "Scoring":
        """The same for the first ``count`` samples."""
        return replace(
            self,
            labels=self.labels[:count],
            anomalies=None if self.anomalies is None else self.anomalies[:count],
            of_outputs={name: each.first(count) for name, each in self.of_outputs.items()},
        )

    def by_output(self, outputs: Float) -> dict[str, Float]:
        """``outputs`` of a model with several, apart: ``(n, …)`` by name."""
        ends = np.cumsum([math.prod(shape) for _, shape in self.layout])[:-1]
        found = zip(self.layout, np.split(outputs, ends, axis=1), strict=True)
        return {name: values.reshape(-1, *shape) for (name, shape), values in found}

    def each(self, outputs: Float) -> list[tuple[str, "Scoring", Float]]:
        """Name, scoring and values ``(n, values)`` of each of several outputs."""
        found = self.by_output(outputs).items()
        return [(name, self.of_outputs[name], values.reshape(len(values), -1)) for name, values in found]

    @property
    def metric(self) -> str:
        """The name of the score."""
        if self.measure is not None:
            return getattr(self.measure, "__name__", "metric")
        if self.task == "reconstruction":
            return "R²" if self.anomalies is None else "AUC"
        return _METRICS[self.task]

    def decisions(self, outputs: Float) -> NDArray[np.int64] | None:
        """What ``outputs`` decide, ``(n, decisions)``: classes, or 0 and 1; ``None`` for a task with values."""
        if self.task in ("regression", "reconstruction", "custom"):
            return None
        if self.task == "several":
            every = [scoring.decisions(values) for _, scoring, values in self.each(outputs)]
            decided = [one for one in every if one is not None]
            return np.concatenate(decided, axis=1) if decided else None
        each = len(self.labels[0].ravel()) if len(self.labels) else 1
        values = outputs.reshape(len(outputs), each, -1)
        if values.shape[2] > 1:
            top: NDArray[np.int64] = values.argmax(axis=2)
            return top
        return (values[..., 0] > _threshold(outputs)).astype(np.int64)

    def credits(self, outputs: Float) -> Credits:
        """What each sample adds to the score, ``(n,)``; their mean is the score."""
        return self._once(self._credits, outputs, _CREDITS[self.task] if self.measure is None else _measured)

    def score(self, outputs: Float) -> Accuracy:
        """The score, with a Wilson interval for right and wrong answers and a bootstrap interval for others."""
        return self._once(self._scores, outputs, Scoring._scored)

    def _once(self, known: dict[bytes, T], outputs: Float, make: Callable[["Scoring", Float], T]) -> T:
        """What ``make`` returns for ``outputs``, from ``known`` if it was made before."""
        key = hashlib.sha256(np.ascontiguousarray(outputs).data).digest()
        if key not in known:
            known[key] = make(self, outputs)
        return known[key]

    def _scored(self, outputs: Float) -> Accuracy:
        credits, more = self.credits(outputs), tuple(self.further(outputs).items())
        if self.counts:
            return Accuracy(correct=int(credits.sum()), total=len(credits), more=more)
        low, high = interval(credits)
        return Accuracy(
            metric=self.metric, share=float(credits.mean()), spread=(low, high), total=len(credits), more=more
        )

    @property
    def counts(self) -> bool:
        """Whether the score is the share of right answers."""
        return self.task == "classification" and self.measure is None

    def further(self, outputs: Float) -> dict[str, float]:
        """Further metrics of the task, by name, in their own units."""
        return _FURTHER[self.task](self, outputs) if self.task in _FURTHER else {}

    def guessing(self) -> float:
        """The score of the best constant outputs; 0 for a score of the user's."""
        if self.measure is not None:
            return 0.0
        if self.task in ("regression", "reconstruction"):
            return 0.0 if self.metric == "R²" else 0.5
        if self.task == "several":
            return float(np.mean([each.guessing() for each in self.of_outputs.values()]))
        flat = self.labels.reshape(len(self.labels), -1)
        if self.task == "multilabel":
            share = flat.mean(axis=0)
            return float(np.maximum(share, 1 - share).mean())
        counts = np.bincount(flat.ravel())
        share = counts.max() / flat.size
        return float(share / np.count_nonzero(counts) if self.task == "segmentation" else share)


def is_share(metric: str) -> bool:
    """Whether a further metric is a share, and not in the unit of the outputs."""
    return metric.split(" of ")[0] in _SHARES


def interval(credits: Credits) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the mean (Efron and Tibshirani 1993, section 13.3); the same each time."""
    draw, count = np.random.default_rng(0), len(credits)
    means = [credits[draw.integers(count, size=count)].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _threshold(outputs: Float) -> float:
    low, high = _PROBABILITIES
    return 0.5 if low <= outputs.min(initial=0) and outputs.max(initial=0) <= high else 0.0


# Credits


def _right(scoring: Scoring, outputs: Float) -> Credits:
    decisions = scoring.decisions(outputs)
    assert decisions is not None
    right: Credits = (decisions == scoring.labels.reshape(decisions.shape)).mean(axis=1)
    return right


def _overlap(scoring: Scoring, outputs: Float) -> Credits:
    """Each image's share in mIoU, linearised (the infinitesimal jackknife, Jaeckel 1972); the mean is mIoU itself."""
    decisions = scoring.decisions(outputs)
    assert decisions is not None
    labels = scoring.labels.reshape(decisions.shape)
    shares = []
    for one in range(scoring.classes):
        found, wanted = decisions == one, labels == one
        both, either = (found & wanted).sum(axis=1), (found | wanted).sum(axis=1)
        if either.sum():  # a class that occurs nowhere is left out
            overlap = both.sum() / either.sum()
            shares.append(overlap + len(both) * (both - overlap * either) / either.sum())
    credits: Credits = np.mean(shares, axis=0)
    return credits


def _explained(scoring: Scoring, outputs: Float) -> Credits:
    """1 - squared error ÷ variance, the mean over the outputs; outputs with constant labels are left out."""
    wanted = _flat(scoring.labels)
    errors, variance = (outputs - wanted) ** 2, wanted.var(axis=0)
    varied = variance > 0
    if not varied.any():
        raise DataError("all labels of the test samples are equal, so R² is not defined; use more test samples")
    credits: Credits = 1 - (errors[:, varied] / variance[varied]).mean(axis=1)
    return credits


def _reconstructed(scoring: Scoring, outputs: Float) -> Credits:
    wanted = _flat(scoring.labels)
    errors = ((outputs - wanted) ** 2).mean(axis=1)
    if scoring.anomalies is not None:
        return _ranked(errors, scoring.anomalies)
    variance = wanted.var(axis=0).mean()
    if not variance:
        raise DataError("all test samples are equal, so R² is not defined; use more test samples")
    credits: Credits = 1 - errors / variance
    return credits


def _ranked(scores: Credits, positive: NDArray[Any]) -> Credits:
    """Each sample's share in the AUC (DeLong et al., Biometrics 44, 1988); the mean is the AUC itself."""
    ups, downs = np.sort(scores[positive == 1]), np.sort(scores[positive == 0])
    if not (ups.size and downs.size):
        raise DataError("the test samples are all of one kind, so the AUC is not defined; use samples of both kinds")

    def below(values: Credits, among: Credits) -> Credits:
        left, right = (np.searchsorted(among, values, side) for side in ("left", "right"))
        share: Credits = (left + right) / 2 / len(among)
        return share

    placed = np.where(positive == 1, below(scores, downs), 1 - below(scores, ups))
    auc = below(ups, downs).mean()
    weight = np.where(positive == 1, len(scores) / len(ups), len(scores) / len(downs))
    credits: Credits = auc + weight * (placed - auc)
    return credits


def _mean_credits(scoring: Scoring, outputs: Float) -> Credits:
    found: Credits = np.mean([each.credits(values) for _, each, values in scoring.each(outputs)], axis=0)
    return found


def _measured(scoring: Scoring, outputs: Float) -> Credits:
    """What the user's function returns for each sample, or each sample's share in the one number that it returns.

    The share is that of a delete-a-group jackknife (Shao and Wu, Annals of Statistics 17, 1989) with at most 20 groups.
    Groups of several samples are spread further, so that an interval over the samples is one over the groups.
    """
    score, count = _value(scoring, scoring.labels, outputs), len(outputs)
    if score.ndim:
        return score
    groups = np.array_split(np.random.default_rng(0).permutation(count), min(_GROUPS, count))
    shares = np.empty(count)
    for group in groups if len(groups) > 1 else ():
        left = np.ones(count, bool)
        left[group] = False
        without = _value(scoring, scoring.labels[left], outputs[left])
        shares[group] = (len(groups) - 1) * (score - without) * len(group) ** 0.5
    return shares - shares.mean() + score if len(groups) > 1 else np.full(count, score)


def _value(scoring: Scoring, labels: NDArray[Any], outputs: Float) -> Credits:
    """What the user's function returns: a number for each sample, or one."""
    assert scoring.measure is not None
    given = scoring.by_output(outputs) if scoring.layout else outputs
    try:
        found: Credits = np.asarray(scoring.measure(by_name(labels) or labels, given), np.float64)
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        shapes = {name: values.shape for name, values in given.items()} if isinstance(given, dict) else given.shape
        raise ConfigError(
            f"the metric {scoring.metric} failed on labels {labels.shape} and outputs {shapes}: {reason}"
        ) from error
    if found.shape not in ((), (len(outputs),)):
        raise ConfigError(
            f"the metric {scoring.metric} must return one number, or one for each of the {len(outputs)} samples; got "
            f"shape {found.shape}"
        )
    if not (np.isfinite(found).all() and found.max() <= 1):
        raise ConfigError(
            f"the metric {scoring.metric} must be at most 1, and higher is better; got {found.max():.4g}; return, for "
            "instance, minus the error"
        )
    return found


_METRICS: dict[TaskName, str] = {
    "classification": "accuracy",
    "multilabel": "label accuracy",
    "segmentation": "mIoU",
    "regression": "R²",
    "several": "mean score",
}
_CREDITS: dict[TaskName, Callable[[Scoring, Float], Credits]] = {
    "classification": _right,
    "multilabel": _right,
    "segmentation": _overlap,
    "regression": _explained,
    "reconstruction": _reconstructed,
    "several": _mean_credits,
}


# Further metrics


def _of_classes(scoring: Scoring, outputs: Float) -> dict[str, float]:
    if outputs.shape[1] == 1:
        return _auc(outputs, scoring.labels[:, np.newaxis])
    if outputs.shape[1] < _MANY_CLASSES:
        return {}
    wanted = outputs[np.arange(len(outputs)), scoring.labels]
    return {"top-5 accuracy": float(((outputs > wanted[:, np.newaxis]).sum(axis=1) < _TOP).mean())}


def _auc(outputs: Float, labels: NDArray[Any]) -> dict[str, float]:
    """The mean AUC of the outputs whose labels are not all equal."""
    mixed = [one for one in range(labels.shape[1]) if 0 < labels[:, one].mean() < 1]
    areas = [_ranked(outputs[:, one].astype(np.float64), labels[:, one]).mean() for one in mixed]
    return {"AUC": float(np.mean(areas))} if areas else {}


def _of_values(scoring: Scoring, outputs: Float) -> dict[str, float]:
    errors = outputs.astype(np.float64) - _flat(scoring.labels)
    return {"MAE": float(np.abs(errors).mean()), "RMSE": float((errors**2).mean() ** 0.5)}


def _of_each(scoring: Scoring, outputs: Float) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, each, values in scoring.each(outputs):
        score = each.score(values)
        found |= {f"{metric} of {name}": value for metric, value in ((score.metric, score.value), *score.more)}
    return found


_FURTHER: dict[TaskName, Callable[[Scoring, Float], dict[str, float]]] = {
    "classification": _of_classes,
    "multilabel": lambda scoring, outputs: _auc(outputs, scoring.labels),
    "segmentation": lambda scoring, outputs: {"pixel accuracy": float(_right(scoring, outputs).mean())},
    "regression": _of_values,
    "several": _of_each,
    "reconstruction": lambda scoring, outputs: {
        "MSE": float(((outputs.astype(np.float64) - _flat(scoring.labels)) ** 2).mean())
    },
}


def _flat(labels: NDArray[Any]) -> NDArray[np.float64]:
    return labels.reshape(len(labels), -1).astype(np.float64)
