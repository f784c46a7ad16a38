/* Runs @@name on the golden inputs and compares every byte with the outputs of @@reference. */
#include <stdio.h>

#include "@@name.h"

#include "@@golden_header"

int main(void)
{
    static @@out_type output[@@{NAME}_OUTPUT_SIZE];@@arena
    int wrong = 0, i, j;
    for (i = 0; i < GOLDEN_COUNT; i++) {
        @@{name}_invoke(golden_inputs[i], output@@with_arena);
        for (j = 0; j < @@{NAME}_OUTPUT_SIZE; j++) {
            if (output[j] != golden_outputs[i][j]) {
                printf("FAILED: golden input %d: output %d is %d, not %d\n", i, j, output[j], golden_outputs[i][j]);
                wrong++;
                break;
            }
        }
    }
    if (wrong != 0)
        return 1;
    printf("ok: %d golden inputs with %d different outputs, every output byte as in @@reference\n",
           GOLDEN_COUNT, GOLDEN_DISTINCT);
    return 0;
}
