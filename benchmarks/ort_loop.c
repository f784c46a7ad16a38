/* A bare loop over ONNX Runtime's C API: what the same .onnx file takes without Python.

   ort_loop LIBRARY MODEL THREADS WARMUP RUNS INPUT OUTPUT TYPE BYTES RANK SIZE... TYPE BYTES RANK SIZE...

   TYPE (an ONNXTensorElementDataType), BYTES and the shape are those of the input, then of the output. The input's
   bytes come from stdin. On stdout: a line with the library's version, a line with the nanoseconds of each run, then
   the output's bytes. No header of the library is needed: its function table is an array of pointers whose order is
   frozen ("Size of version 1 API cannot change"), and that the positions below are right shows in the output. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef void *Status;
typedef const void *const *Table;

typedef struct {
    Table (*get_api)(uint32_t version);
    const char *(*get_version)(void);
} ApiBase;

enum {
    GET_ERROR_MESSAGE = 2, CREATE_ENV = 3, CREATE_SESSION = 7, RUN = 9, CREATE_SESSION_OPTIONS = 10,
    SET_INTRA_OP_NUM_THREADS = 24, SET_INTER_OP_NUM_THREADS = 25, CREATE_TENSOR_WITH_DATA = 49,
    CREATE_CPU_MEMORY_INFO = 69
};

static Table api;

static void fail(const char *what) {
    fprintf(stderr, "ort_loop: %s\n", what);
    exit(1);
}

static void check(Status status) {
    if (status) fail(((const char *(*)(Status))api[GET_ERROR_MESSAGE])(status));
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* A tensor over memory of its own, described by the arguments from *at on, which moves behind them. */
static void *tensor(char **argv, int *at, void *memory_info, void **data, size_t *bytes) {
    int type = atoi(argv[(*at)++]);
    *bytes = strtoull(argv[(*at)++], NULL, 10);
    size_t rank = strtoull(argv[(*at)++], NULL, 10);
    int64_t shape[16];
    if (rank > 16) fail("more than 16 dimensions");
    for (size_t axis = 0; axis < rank; ++axis) shape[axis] = atoll(argv[(*at)++]);
    void *value = NULL;
    *data = calloc(*bytes, 1);
    check(((Status(*)(void *, void *, size_t, const int64_t *, size_t, int, void **))api[CREATE_TENSOR_WITH_DATA])(
        memory_info, *data, *bytes, shape, rank, type, &value));
    return value;
}

int main(int argc, char **argv) {
    if (argc < 14) fail("too few arguments");
    int threads = atoi(argv[3]), warmup = atoi(argv[4]), runs = atoi(argv[5]), at = 8;
    const char *input_name = argv[6], *output_name = argv[7];
    void *library = dlopen(argv[1], RTLD_NOW);
    if (!library) fail(dlerror());
    const ApiBase *(*get_base)(void) = (const ApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
    if (!get_base) fail("the library has no OrtGetApiBase");
    api = get_base()->get_api(1);
    if (!api) fail("the library does not offer version 1 of its API");

    void *env, *options, *session, *memory_info, *in_data, *out_data;
    size_t in_bytes, out_bytes;
    check(((Status(*)(int, const char *, void **))api[CREATE_ENV])(4, "ort_loop", &env));
    check(((Status(*)(void **))api[CREATE_SESSION_OPTIONS])(&options));
    check(((Status(*)(void *, int))api[SET_INTRA_OP_NUM_THREADS])(options, threads));
    check(((Status(*)(void *, int))api[SET_INTER_OP_NUM_THREADS])(options, 1));
    check(((Status(*)(void *, const char *, void *, void **))api[CREATE_SESSION])(env, argv[2], options, &session));
    check(((Status(*)(int, int, void **))api[CREATE_CPU_MEMORY_INFO])(1, 0, &memory_info));
    void *input = tensor(argv, &at, memory_info, &in_data, &in_bytes);
    void *output = tensor(argv, &at, memory_info, &out_data, &out_bytes);
    if (fread(in_data, 1, in_bytes, stdin) != in_bytes) fail("stdin has too few bytes for the input");

    Status (*run)(void *, void *, const char *const *, void *const *, size_t, const char *const *, size_t, void **) =
        (Status(*)(void *, void *, const char *const *, void *const *, size_t, const char *const *, size_t, void **))
            api[RUN];
    int64_t *taken = calloc((size_t)(warmup + runs), sizeof *taken);
    for (int index = 0; index < warmup + runs; ++index) {
        int64_t start = now();
        Status status = run(session, NULL, &input_name, &input, 1, &output_name, 1, &output);
        taken[index] = now() - start;
        check(status);
    }
    printf("%s\n", get_base()->get_version());
    for (int index = warmup; index < warmup + runs; ++index) printf("%lld ", (long long)taken[index]);
    printf("\n");
    fwrite(out_data, 1, out_bytes, stdout);
    return 0;
}
