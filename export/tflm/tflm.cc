/* @@name in TensorFlow Lite Micro: generated, do not edit. */
#include "@@{name}_tflm.h"

@@{includes}#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

#include "@@{name}_model.h"

/* Newer versions have the classes in tflite::micro, older ones in tflite. */
namespace tflite {
namespace micro {}
}  // namespace tflite
using namespace tflite;
using namespace tflite::micro;

namespace {

alignas(16) uint8_t arena[@@{NAME}_ARENA_SIZE];
MicroInterpreter *interpreter = nullptr;

}  // namespace

bool @@{name}_init(void)
{
    /* only the operators of the model */
    static MicroMutableOpResolver<@@count> resolver;
    static const bool added =
        @@calls;
@@{allocator}    static MicroInterpreter instance(GetModel(@@{name}_model), resolver, @@memory);
    if (!added || instance.AllocateTensors() != kTfLiteOk)
        return false;
    interpreter = &instance;
    return true;
}

@@defined
bool @@{name}_invoke(void)
{
    return interpreter->Invoke() == kTfLiteOk;
}

size_t @@{name}_arena_used(void)
{
    return interpreter->arena_used_bytes();
}
