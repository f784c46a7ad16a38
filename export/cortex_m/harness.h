/* The platform interface of the test program: files, text output, exit. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stddef.h>
#include <stdint.h>

int harness_open(const char *name, int writing);                /* a handle, or -1 */
size_t harness_read(int file, int8_t *bytes, size_t count);     /* how many were read */
size_t harness_write(int file, const int8_t *bytes, size_t count);
void harness_print(const char *text);
void harness_exit(int status);

/* Lowest address of the stack; NULL on Linux, where the loader places the stack. */
extern uint8_t *const harness_stack;

#endif
