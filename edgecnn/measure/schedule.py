"""The order of the blocks of measurements."""

import random


def rounds(candidates: int, blocks: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """``blocks`` rounds, each a random permutation of ``0 … candidates - 1``; deterministic for a seed.

    Every candidate has one block in every round, so slow changes of the machine (temperature, other load) affect all
    of them equally. The random order avoids that a candidate always runs after the same other one.
    """
    generator = random.Random(seed)
    return tuple(tuple(generator.sample(range(candidates), candidates)) for _ in range(blocks))
