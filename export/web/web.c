/* The model's buffers and its function, for JavaScript. */
#include "@@name.h"

#define EXPORT(function) __attribute__((export_name(#function)))

static @@in_type input[@@{NAME}_INPUT_SIZE];
static @@out_type output[@@{NAME}_OUTPUT_SIZE];

EXPORT(input) @@in_type *input_buffer(void) { return input; }
EXPORT(output) @@out_type *output_buffer(void) { return output; }
EXPORT(reset) void reset(void) { @@begin }
EXPORT(invoke) void invoke(void) { @@{name}_invoke(input, output); }
