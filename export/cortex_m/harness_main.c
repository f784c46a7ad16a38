/* Runs the model on every input of inputs.bin and writes the outputs to outputs.bin. */
#include "harness.h"
#include MODEL_HEADER

#define PAINT 0xA5

static int8_t harness_input[MODEL_INPUT_SIZE] __attribute__((aligned(4)));
static int8_t harness_output[MODEL_OUTPUT_SIZE] __attribute__((aligned(4)));
#ifdef HARNESS_ARENA_SIZE
static int32_t harness_arena[HARNESS_ARENA_SIZE / 4 + 1];
#define ARENA , harness_arena
#else
#define ARENA
#endif

/* Fill the free stack up to the caller's frame with a pattern, to measure stack usage later. */
__attribute__((noinline)) static void harness_paint(void) {
    volatile uint8_t *end = (volatile uint8_t *)__builtin_frame_address(0) - 64;
    for (volatile uint8_t *byte = harness_stack; byte != NULL && byte < end; ++byte) *byte = PAINT;
}

/* Bytes of the stack below this frame that no longer hold the pattern. */
__attribute__((noinline)) static uint32_t harness_stack_used(void) {
    const volatile uint8_t *end = (volatile uint8_t *)__builtin_frame_address(0);
    const volatile uint8_t *byte = harness_stack;
    while (byte != NULL && byte < end && *byte == PAINT) ++byte;
    return byte == NULL ? 0 : (uint32_t)(end - byte);
}

static void harness_number(uint32_t number) {
    char text[11];
    char *first = text + 10;
    *first = '\0';
    do *--first = (char)('0' + number % 10); while ((number /= 10) != 0);
    harness_print(first);
}

int main(void) {
    const int inputs = harness_open("inputs.bin", 0);
    const int outputs = harness_open("outputs.bin", 1);
    if (inputs < 0 || outputs < 0) {
        harness_print("cannot open inputs.bin or outputs.bin\n");
        harness_exit(1);
    }
    uint32_t inferences = 0;
    harness_paint();
    while (harness_read(inputs, harness_input, MODEL_INPUT_SIZE) == MODEL_INPUT_SIZE) {
        MODEL_INVOKE((const void *)harness_input, (void *)harness_output ARENA); /* of any type */
        if (harness_write(outputs, harness_output, MODEL_OUTPUT_SIZE) != MODEL_OUTPUT_SIZE) {
            harness_print("cannot write outputs.bin\n");
            harness_exit(1);
        }
        ++inferences;
    }
    harness_print("inferences ");
    harness_number(inferences);
    harness_print(", stack ");
    harness_number(harness_stack_used());
    harness_print(" bytes\n");
    harness_exit(0);
    return 0;
}
