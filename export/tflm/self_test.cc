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
        @@fill
        if (!@@{name}_invoke()) {
            MicroPrintf("FAILED: golden input %d: a kernel failed", i);
            return 1;
        }
        static @@out_type outputs[@@output_size];
        @@collect
        for (int j = 0; j < @@output_size; j++) {
            if (outputs[j] != golden_outputs[i][j]) {
                MicroPrintf("FAILED: golden input %d: output %d is %d, not %d", i, j, outputs[j], golden_outputs[i][j]);
                wrong++;
                break;
            }
        }
    }
    MicroPrintf("arena: %d of %d bytes used", static_cast<int>(@@{name}_arena_used()), @@{NAME}_ARENA_SIZE);
    if (wrong != 0)
        return 1;
    MicroPrintf("ok: %d golden inputs with %d different outputs, every output byte as on the host", GOLDEN_COUNT,
                GOLDEN_DISTINCT);
    return 0;
}
