"""What the tests on emulated machines share: a model written by hand, and what to do where a tool is missing."""

import numpy as np
import tools

from edgecnn.emulation import Sources, missing_tools
from edgecnn.emulation.machine import Int8

WEIGHTS = np.array([3, -4, 5, 7, 1, 2, 9, -8, 6, 100])

HEADER = """\
#include <stdint.h>
void tiny_invoke(const int8_t *input, int8_t *output);
"""

CODE = """\
#include "tiny.h"
static const int16_t weights[10] = {3, -4, 5, 7, 1, 2, 9, -8, 6, 100};
static int32_t sums[10];
static int16_t halves[40] = {1};
static void halve(const int8_t *input) {
    for (int i = 0; i < 40; ++i) halves[i] = (int16_t)(input[i] >> 1);
}
void tiny_invoke(const int8_t *input, int8_t *output) {
    halve(input);
    for (int o = 0; o < 10; ++o) {
        sums[o] = 0;
        for (int i = o; i < 40; i += 10) sums[o] += halves[i] * weights[o];
        output[o] = (int8_t)(sums[o] >> 8);
    }
}
"""


def tiny(code: str = CODE) -> Sources:
    """A model of 40 inputs and 10 outputs."""
    files = {"tiny.h": HEADER.encode(), "tiny.c": code.encode()}
    return Sources(name="tiny", files=files, input_size=40, output_size=10)


def tiny_answers(inputs: Int8) -> Int8:
    """What it should answer, computed here."""
    sums = (inputs.astype(np.int64) >> 1).reshape(-1, 4, 10).sum(axis=1) * WEIGHTS
    return (sums >> 8).astype(np.int8)


def need(target: str) -> None:
    """Skip where a tool of ``target`` is missing; fail in CI."""
    for tool in missing_tools(target):
        tools.need(tool)
