/* @@name in TensorFlow Lite Micro: generated, do not edit. */
#ifndef @@{NAME}_TFLM_H
#define @@{NAME}_TFLM_H

#include <stddef.h>
#include <stdint.h>

/* real = (integer - ZERO_POINT) * SCALE */
#define @@{NAME}_INPUT_SIZE @@input_size
#define @@{NAME}_INPUT_SCALE @@input_scale
#define @@{NAME}_INPUT_ZERO_POINT @@input_zero_point
#define @@{NAME}_OUTPUT_SIZE @@output_size
#define @@{NAME}_OUTPUT_SCALE @@output_scale
#define @@{NAME}_OUTPUT_ZERO_POINT @@output_zero_point

/* Measured on the host: @@measured bytes. On top of that @@margin (1 KiB at least), because optimised kernels may ask
   for scratch memory that the host's do not. @@{name}_arena_used() tells what the device takes. */
#ifndef @@{NAME}_ARENA_SIZE
#define @@{NAME}_ARENA_SIZE @@arena
#endif

/* Makes the interpreter; once, before the others. False where TensorFlow Lite Micro refuses: its log says why. */
bool @@{name}_init(void);

/* Where to put @@{NAME}_INPUT_SIZE integers; anew before every call of @@{name}_invoke, which may write over them. */
@@in_type *@@{name}_input(void);

/* Runs the model once; false where a kernel failed. */
bool @@{name}_invoke(void);

/* @@{NAME}_OUTPUT_SIZE integers. */
const @@out_type *@@{name}_output(void);

/* Bytes of the arena in use: what @@{NAME}_ARENA_SIZE may be brought down to on this device with these kernels. */
size_t @@{name}_arena_used(void);

#endif
