/* Runs @@name on the golden inputs and compares every byte with TensorFlow Lite Micro's outputs on the host. */
#include <string.h>

#include "tensorflow/lite/micro/micro_log.h"

#include "@@{name}_tflm.h"

#include "golden.h"

int main(void)
{
    if (!@@{name}_init()) {
        MicroPrintf("FAILED: cannot create the interpreter; is the arena of %d bytes too small?", @@{NAME}_ARENA_SIZE);
        return 1;
    }
    int wrong = 0;
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        memcpy(@@{name}_input(), golden_inputs[i], sizeof(golden_inputs[i]));
        if (!@@{name}_invoke()) {
            MicroPrintf("FAILED: golden input %d: a kernel failed", i);
            return 1;
        }
        for (int j = 0; j < @@{NAME}_OUTPUT_SIZE; j++) {
            const int output = @@{name}_output()[j];
            if (output != golden_outputs[i][j]) {
                MicroPrintf("FAILED: golden input %d: output %d is %d, not %d", i, j, output, golden_outputs[i][j]);
                wrong++;
                break;
            }
        }
    }
    MicroPrintf("arena: %d of %d bytes used", static_cast<int>(@@{name}_arena_used()), @@{NAME}_ARENA_SIZE);
    if (wrong != 0)
        return 1;
    MicroPrintf("ok: %d golden inputs, every output byte as on the host", GOLDEN_COUNT);
    return 0;
}
