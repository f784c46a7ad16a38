/* A resolver of N operators, for the tests; see micro_interpreter.h. One more than N is refused, as in TFLM. */
#pragma once
#include "tensorflow/lite/micro/micro_interpreter.h"

namespace tflite {
namespace micro {

#define REGISTER(kind) TFLMRegistration Register_##kind();
#define PARSE(name) TfLiteStatus Parse##name(const Operator *, BuiltinDataAllocator *, void **);
REGISTER(ADD) REGISTER(AVERAGE_POOL_2D) REGISTER(CONV_2D) REGISTER(DEPTHWISE_CONV_2D) REGISTER(FULLY_CONNECTED)
REGISTER(LOGISTIC) REGISTER(MAX_POOL_2D) REGISTER(MUL) REGISTER(RESHAPE) REGISTER(SOFTMAX) REGISTER(PAD)
REGISTER(MEAN) REGISTER(QUANTIZE) REGISTER(HARD_SWISH) REGISTER(CONCATENATION) REGISTER(TRANSPOSE_CONV)
REGISTER(REDUCE_MAX) REGISTER(DEQUANTIZE) REGISTER(SVDF) REGISTER(UNIDIRECTIONAL_SEQUENCE_LSTM) REGISTER(STRIDED_SLICE)
REGISTER(SPLIT_V) REGISTER(CALL_ONCE) REGISTER(VAR_HANDLE) REGISTER(READ_VARIABLE) REGISTER(ASSIGN_VARIABLE)
REGISTER(SHAPE) REGISTER(PACK)
PARSE(Add) PARSE(Pool) PARSE(Conv2D) PARSE(DepthwiseConv2D) PARSE(FullyConnected) PARSE(Logistic) PARSE(Mul)
PARSE(Reshape) PARSE(Softmax) PARSE(Pad) PARSE(Reducer) PARSE(Quantize) PARSE(HardSwish)
PARSE(Concatenation) PARSE(TransposeConv) PARSE(Dequantize) PARSE(Svdf) PARSE(UnidirectionalSequenceLSTM)
PARSE(StridedSlice) PARSE(SplitV) PARSE(CallOnce) PARSE(VarHandle) PARSE(ReadVariable) PARSE(AssignVariable) PARSE(Shape) PARSE(Pack)
#undef REGISTER
#undef PARSE

template <unsigned int N>
class MicroMutableOpResolver : public MicroOpResolver {
  public:
    TfLiteStatus AddAdd() { return add(BuiltinOperator_ADD, Register_ADD(), ParseAdd); }
    TfLiteStatus AddAveragePool2D() { return add(BuiltinOperator_AVERAGE_POOL_2D, Register_AVERAGE_POOL_2D(), ParsePool); }
    TfLiteStatus AddConv2D() { return add(BuiltinOperator_CONV_2D, Register_CONV_2D(), ParseConv2D); }
    TfLiteStatus AddDepthwiseConv2D()
    {
        return add(BuiltinOperator_DEPTHWISE_CONV_2D, Register_DEPTHWISE_CONV_2D(), ParseDepthwiseConv2D);
    }
    TfLiteStatus AddFullyConnected()
    {
        return add(BuiltinOperator_FULLY_CONNECTED, Register_FULLY_CONNECTED(), ParseFullyConnected);
    }
    TfLiteStatus AddLogistic() { return add(BuiltinOperator_LOGISTIC, Register_LOGISTIC(), ParseLogistic); }
    TfLiteStatus AddMaxPool2D() { return add(BuiltinOperator_MAX_POOL_2D, Register_MAX_POOL_2D(), ParsePool); }
    TfLiteStatus AddMul() { return add(BuiltinOperator_MUL, Register_MUL(), ParseMul); }
    TfLiteStatus AddReshape() { return add(BuiltinOperator_RESHAPE, Register_RESHAPE(), ParseReshape); }
    TfLiteStatus AddSoftmax() { return add(BuiltinOperator_SOFTMAX, Register_SOFTMAX(), ParseSoftmax); }
    TfLiteStatus AddPad() { return add(BuiltinOperator_PAD, Register_PAD(), ParsePad); }
    TfLiteStatus AddMean() { return add(BuiltinOperator_MEAN, Register_MEAN(), ParseReducer); }
    TfLiteStatus AddReduceMax() { return add(BuiltinOperator_REDUCE_MAX, Register_REDUCE_MAX(), ParseReducer); }
    TfLiteStatus AddQuantize() { return add(BuiltinOperator_QUANTIZE, Register_QUANTIZE(), ParseQuantize); }
    TfLiteStatus AddHardSwish() { return add(BuiltinOperator_HARD_SWISH, Register_HARD_SWISH(), ParseHardSwish); }

    TfLiteStatus AddConcatenation()
    {
        return add(BuiltinOperator_CONCATENATION, Register_CONCATENATION(), ParseConcatenation);
    }
    TfLiteStatus AddTransposeConv()
    {
        return add(BuiltinOperator_TRANSPOSE_CONV, Register_TRANSPOSE_CONV(), ParseTransposeConv);
    }
    TfLiteStatus AddShape() { return add(BuiltinOperator_SHAPE, Register_SHAPE(), ParseShape); }
    TfLiteStatus AddPack() { return add(BuiltinOperator_PACK, Register_PACK(), ParsePack); }
    TfLiteStatus AddDequantize()
    {
        return add(BuiltinOperator_DEQUANTIZE, Register_DEQUANTIZE(), ParseDequantize);
    }
    TfLiteStatus AddSvdf()
    {
        return add(BuiltinOperator_SVDF, Register_SVDF(), ParseSvdf);
    }
    TfLiteStatus AddUnidirectionalSequenceLSTM()
    {
        return add(BuiltinOperator_UNIDIRECTIONAL_SEQUENCE_LSTM, Register_UNIDIRECTIONAL_SEQUENCE_LSTM(), ParseUnidirectionalSequenceLSTM);
    }
    TfLiteStatus AddStridedSlice()
    {
        return add(BuiltinOperator_STRIDED_SLICE, Register_STRIDED_SLICE(), ParseStridedSlice);
    }
    TfLiteStatus AddSplitV()
    {
        return add(BuiltinOperator_SPLIT_V, Register_SPLIT_V(), ParseSplitV);
    }
    TfLiteStatus AddCallOnce()
    {
        return add(BuiltinOperator_CALL_ONCE, Register_CALL_ONCE(), ParseCallOnce);
    }
    TfLiteStatus AddVarHandle()
    {
        return add(BuiltinOperator_VAR_HANDLE, Register_VAR_HANDLE(), ParseVarHandle);
    }
    TfLiteStatus AddReadVariable()
    {
        return add(BuiltinOperator_READ_VARIABLE, Register_READ_VARIABLE(), ParseReadVariable);
    }
    TfLiteStatus AddAssignVariable()
    {
        return add(BuiltinOperator_ASSIGN_VARIABLE, Register_ASSIGN_VARIABLE(), ParseAssignVariable);
    }

    const TFLMRegistration *FindOp(BuiltinOperator op) const override
    {
        for (unsigned int i = 0; i < count_; i++)
            if (registrations_[i].builtin_code == op)
                return &registrations_[i];
        return nullptr;
    }
    const TFLMRegistration *FindOp(const char *) const override { return nullptr; }
    Parser GetOpDataParser(BuiltinOperator op) const override
    {
        for (unsigned int i = 0; i < count_; i++)
            if (registrations_[i].builtin_code == op)
                return parsers_[i];
        return nullptr;
    }

  private:
    TfLiteStatus add(BuiltinOperator op, const TFLMRegistration &registration, Parser parser)
    {
        if (count_ == N)
            return kTfLiteError;
        registrations_[count_] = registration;
        registrations_[count_].builtin_code = op;
        parsers_[count_++] = parser;
        return kTfLiteOk;
    }

    TFLMRegistration registrations_[N];
    Parser parsers_[N];
    unsigned int count_ = 0;
};

}  // namespace micro
}  // namespace tflite
