/* @@name in TensorFlow Lite Micro: generated, do not edit. */
#ifndef @@{NAME}_TFLM_H
#define @@{NAME}_TFLM_H

#include <stddef.h>
#include <stdint.h>

@@{about_macros}@@macros

/* Measured on the host: @@measured bytes, plus @@margin_text for optimised kernels, of which CMSIS-NN's may take
   @@scratch_text; see the README. @@{name}_arena_used() returns the size used on the device. */
#ifndef @@{NAME}_ARENA_SIZE
#define @@{NAME}_ARENA_SIZE @@arena
#endif

/* Creates the interpreter; call once, before the other functions. False if TensorFlow Lite Micro fails; see its log. */
bool @@{name}_init(void);

@@declared
/* Runs the model once; false if a kernel failed. */
bool @@{name}_invoke(void);

/* Bytes of the arena in use. Creating the interpreter can need some more: confirm a smaller @@{NAME}_ARENA_SIZE with
   the self-test. */
size_t @@{name}_arena_used(void);

#endif
