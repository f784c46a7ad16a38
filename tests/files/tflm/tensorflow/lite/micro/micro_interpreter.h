/* Just enough declarations to link a kit against TensorFlow Lite Micro itself, as the tflite-micro package has it
   compiled in its _runtime.so. The package brings no headers. Written for the tests, after the exported symbols;
   objects whose size is not known get ample storage. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "tensorflow/lite/schema/schema_generated.h"

namespace tflite {
namespace micro {

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };

struct TfLiteTensor {
    struct {
        int type;
        void *params;
    } quantization;
    struct {
        float scale;
        int32_t zero_point;
    } params;
    union {
        void *data;
    } data;
};

class BuiltinDataAllocator;
class MicroAllocator;
class MicroProfilerInterface;

class MicroResourceVariables {
  public:
    static MicroResourceVariables *Create(MicroAllocator *allocator, int count);
};

struct alignas(8) TFLMRegistration {
    void *functions[5];
    int32_t builtin_code;
    void *rest[16];
};

using Parser = TfLiteStatus (*)(const Operator *, BuiltinDataAllocator *, void **);

class MicroOpResolver {
  public:
    virtual const TFLMRegistration *FindOp(BuiltinOperator op) const = 0;
    virtual const TFLMRegistration *FindOp(const char *op) const = 0;
    virtual Parser GetOpDataParser(BuiltinOperator op) const = 0;
    virtual ~MicroOpResolver() {}
};

enum class MemoryPlannerType { kGreedy, kLinear };

class MicroAllocator {
  public:
    static MicroAllocator *Create(uint8_t *arena, size_t size, MemoryPlannerType type);
    /* TFLM has no such function, but a default for the type; the last allocator is kept for arena_used_bytes() */
    static MicroAllocator *Create(uint8_t *arena, size_t size)
    {
        return last() = Create(arena, size, MemoryPlannerType::kGreedy);
    }
    static MicroAllocator *&last()
    {
        static MicroAllocator *kept;
        return kept;
    }
    size_t used_bytes() const;
};

class MicroInterpreter {
  public:
    MicroInterpreter(const Model *model, const MicroOpResolver &resolver, MicroAllocator *allocator,
                     MicroResourceVariables *variables = nullptr, MicroProfilerInterface *profiler = nullptr);
    MicroInterpreter(const Model *model, const MicroOpResolver &resolver, uint8_t *arena, size_t size)
        : MicroInterpreter(model, resolver, MicroAllocator::Create(arena, size))
    {
    }
    ~MicroInterpreter();
    TfLiteStatus AllocateTensors();
    TfLiteStatus Invoke();
    TfLiteTensor *input(size_t index);
    TfLiteTensor *output(size_t index);
    size_t arena_used_bytes() const { return MicroAllocator::last()->used_bytes(); }

  private:
    alignas(16) unsigned char storage_[8192];
};

}  // namespace micro
}  // namespace tflite
