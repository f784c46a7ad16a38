/* The platform interface on Linux. */
#include "harness.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint8_t *const harness_stack = NULL;

int harness_open(const char *name, int writing) {
    return writing ? open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666) : open(name, O_RDONLY);
}

size_t harness_read(int file, int8_t *bytes, size_t count) {
    size_t done = 0;
    ssize_t got;
    while (done < count && (got = read(file, bytes + done, count - done)) > 0) done += (size_t)got;
    return done;
}

size_t harness_write(int file, const int8_t *bytes, size_t count) {
    size_t done = 0;
    ssize_t got;
    while (done < count && (got = write(file, bytes + done, count - done)) > 0) done += (size_t)got;
    return done;
}

void harness_print(const char *text) { harness_write(STDOUT_FILENO, (const int8_t *)text, strlen(text)); }

void harness_exit(int status) { exit(status); }
