/* Runs @@name on the golden inputs and compares the outputs with TensorFlow Lite Micro's on the host. */
#include <string.h>

#include <type_traits>

#include "tensorflow/lite/micro/micro_log.h"

#include "@@{name}_tflm.h"

#include "golden.h"

/* Whether each value of an output is within the limit of what is expected; prints the first that is not. */
template <typename T>
static bool same(int place, const char *name, const T *found, const T *expected, int size, double limit)
{
    for (int i = 0; i < size; i++) {
        const double difference = static_cast<double>(found[i]) - static_cast<double>(expected[i]);
        if (difference >= -limit && difference <= limit)
            continue;
        if (std::is_floating_point<T>::value)
            MicroPrintf("FAILED: golden input %d: %s %d is %f, not %f", place, name, i, static_cast<double>(found[i]),
                        static_cast<double>(expected[i]));
        else
            MicroPrintf("FAILED: golden input %d: %s %d is %d, not %d", place, name, i, static_cast<int>(found[i]),
                        static_cast<int>(expected[i]));
        return false;
    }
    return true;
}

int main(void)
{
    if (!@@{name}_init()) {
        MicroPrintf("FAILED: cannot create the interpreter; is the arena of %d bytes too small?", @@{NAME}_ARENA_SIZE);
        return 1;
    }
    bool right = true;
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        @@fill
        if (!@@{name}_invoke()) {
            MicroPrintf("FAILED: golden input %d: a kernel failed", i);
            return 1;
        }
        @@compare
    }
    MicroPrintf("arena: %d of %d bytes used", static_cast<int>(@@{name}_arena_used()), @@{NAME}_ARENA_SIZE);
    if (!right)
        return 1;
    MicroPrintf("ok: %d golden inputs with %d different outputs, @@equal @@as_on", GOLDEN_COUNT, GOLDEN_DISTINCT);
    return 0;
}
