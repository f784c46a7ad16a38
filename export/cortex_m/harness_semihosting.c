/* The platform interface through semihosting, implemented by QEMU (Arm, "Semihosting for AArch32 and AArch64"; RISC-V
   uses the same calls: "RISC-V Semihosting"). */
#include "harness.h"

enum { SYS_OPEN = 0x01, SYS_WRITE0 = 0x04, SYS_WRITE = 0x05, SYS_READ = 0x06, SYS_EXIT_EXTENDED = 0x20 };
enum { MODE_READ_BINARY = 1, MODE_WRITE_BINARY = 5, APPLICATION_EXIT = 0x20026 };

extern uint8_t stack_limit[];
uint8_t *const harness_stack = stack_limit;

/* Not inlined: RISC-V requires the three instructions of a call in one page. */
__attribute__((noinline, aligned(16))) static intptr_t harness_call(intptr_t operation, const void *arguments) {
#if defined(__riscv)
    register intptr_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = arguments;
    __asm__ volatile(".option push\n.option norvc\nslli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n.option pop"
                     : "+r"(a0) : "r"(a1) : "memory");
    return a0;
#else
    register intptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
#endif
}

int harness_open(const char *name, int writing) {
    size_t length = 0;
    while (name[length] != '\0') ++length;
    const intptr_t arguments[3] = {(intptr_t)name, writing ? MODE_WRITE_BINARY : MODE_READ_BINARY, (intptr_t)length};
    return (int)harness_call(SYS_OPEN, arguments);
}

size_t harness_read(int file, int8_t *bytes, size_t count) {
    const intptr_t arguments[3] = {file, (intptr_t)bytes, (intptr_t)count};
    return count - (size_t)harness_call(SYS_READ, arguments);
}

size_t harness_write(int file, const int8_t *bytes, size_t count) {
    const intptr_t arguments[3] = {file, (intptr_t)bytes, (intptr_t)count};
    return count - (size_t)harness_call(SYS_WRITE, arguments);
}

void harness_print(const char *text) { harness_call(SYS_WRITE0, text); }

void harness_exit(int status) {
    const intptr_t arguments[2] = {APPLICATION_EXIT, status};
    harness_call(SYS_EXIT_EXTENDED, arguments);
    for (;;) {
    }
}
