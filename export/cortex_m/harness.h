/* What the test program needs of the machine it runs on: two files, a line of text, an end. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stddef.h>
#include <stdint.h>

int harness_open(const char *name, int writing);                /* a handle, or -1 */
size_t harness_read(int file, int8_t *bytes, size_t count);     /* how many were read */
size_t harness_write(int file, const int8_t *bytes, size_t count);
void harness_print(const char *text);
void harness_exit(int status);

/* The part of the stack that is free when main starts, up from here; NULL where the machine's loader decides. */
extern uint8_t *const harness_stack;

#endif
