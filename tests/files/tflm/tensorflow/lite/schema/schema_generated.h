/* Declarations of what the kit calls; see ../micro/micro_interpreter.h. */
#pragma once
#include <stdint.h>
#include <string.h>

namespace tflite {

struct Model;
struct Operator;

/* numbers as in schema.fbs */
enum BuiltinOperator {
    BuiltinOperator_ADD = 0,
    BuiltinOperator_AVERAGE_POOL_2D = 1,
    BuiltinOperator_CONCATENATION = 2,
    BuiltinOperator_CONV_2D = 3,
    BuiltinOperator_TRANSPOSE_CONV = 67,
    BuiltinOperator_DEPTHWISE_CONV_2D = 4,
    BuiltinOperator_FULLY_CONNECTED = 9,
    BuiltinOperator_LOGISTIC = 14,
    BuiltinOperator_MAX_POOL_2D = 17,
    BuiltinOperator_MUL = 18,
    BuiltinOperator_RESHAPE = 22,
    BuiltinOperator_SOFTMAX = 25,
    BuiltinOperator_PAD = 34,
    BuiltinOperator_MEAN = 40,
    BuiltinOperator_REDUCE_MAX = 82,
    BuiltinOperator_QUANTIZE = 114,
    BuiltinOperator_HARD_SWISH = 117,
    BuiltinOperator_DEQUANTIZE = 6,
    BuiltinOperator_SVDF = 27,
    BuiltinOperator_UNIDIRECTIONAL_SEQUENCE_LSTM = 44,
    BuiltinOperator_STRIDED_SLICE = 45,
    BuiltinOperator_SHAPE = 77,
    BuiltinOperator_PACK = 83,
    BuiltinOperator_SPLIT_V = 102,
    BuiltinOperator_CALL_ONCE = 129,
    BuiltinOperator_VAR_HANDLE = 142,
    BuiltinOperator_READ_VARIABLE = 143,
    BuiltinOperator_ASSIGN_VARIABLE = 144,
};

/* a flatbuffer begins with the offset of its root */
inline const Model *GetModel(const void *buffer)
{
    uint32_t root;
    memcpy(&root, buffer, sizeof(root));
    return reinterpret_cast<const Model *>(static_cast<const unsigned char *>(buffer) + root);
}

}  // namespace tflite
