"""In which order blocks of measurements run."""

import random


def rounds(candidates: int, blocks: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """``blocks`` rounds, each a random permutation of ``0 … candidates - 1``; the same for the same seed.

    Every candidate has one block in every round, so slow changes of the machine (heat, other load) reach all
    of them alike, and the random order keeps one from always running after the same neighbour.
    """
    generator = random.Random(seed)
    return tuple(tuple(generator.sample(range(candidates), candidates)) for _ in range(blocks))
