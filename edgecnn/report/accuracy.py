"""Differences of two counts of right answers, in percentage points, with 95 % intervals."""

import base64

from edgecnn.bench.statistics import Estimate
from edgecnn.records import Accuracy, Answers

_Z = 1.959964  # of the normal distribution, 95 % two-sided


def same_images(answers: Answers | None, reference: Answers | None) -> bool:
    """Whether two countings can be paired: both say which images were right, and the images are the same."""
    if answers is None or reference is None:
        return False
    return (answers.images_sha256, answers.total) == (reference.images_sha256, reference.total)


def discordant(answers: Answers, reference: Answers) -> tuple[int, int]:
    """How many images only ``answers`` has right, and how many only ``reference``."""
    ours, theirs = (int.from_bytes(base64.b64decode(one.right), "big") for one in (answers, reference))
    return (ours & ~theirs).bit_count(), (theirs & ~ours).bit_count()


def paired_points(answers: Answers | None, reference: Answers | None) -> Estimate | None:
    """Points of ``answers`` above ``reference`` on the same images; ``None`` where they cannot be paired.

    The interval is Bonett and Price's for paired proportions (Journal of Educational and Behavioral Statistics 37,
    2012): Wald's, after one image more is counted for either side.
    """
    if answers is None or reference is None or not same_images(answers, reference):
        return None
    gained, lost = discordant(answers, reference)
    total = answers.total + 2
    more, less = (gained + 1) / total, (lost + 1) / total
    half = _Z * ((more + less - (more - less) ** 2) / total) ** 0.5
    middle = more - less
    return Estimate(
        value=100 * (gained - lost) / answers.total,
        low=100 * max(-1.0, middle - half),
        high=100 * min(1.0, middle + half),
    )


def unpaired_points(accuracy: Accuracy, reference: Accuracy) -> Estimate:
    """Points of ``accuracy`` above ``reference`` where it is not known which images were right.

    Newcombe's interval from the two Wilson intervals (Statistics in Medicine 17, 1998, method 10). On the same images
    it is too wide, since models mostly stumble over the same ones.
    """
    apart = accuracy.value - reference.value
    (low, high), (other_low, other_high) = accuracy.interval, reference.interval
    down = ((accuracy.value - low) ** 2 + (other_high - reference.value) ** 2) ** 0.5
    up = ((high - accuracy.value) ** 2 + (reference.value - other_low) ** 2) ** 0.5
    return Estimate(value=100 * apart, low=100 * (apart - down), high=100 * (apart + up))
