/* Start-up code for RISC-V: stack, traps, initialised memory. */
#include "harness.h"

extern uint8_t data_start[], data_end[], data_load[], bss_start[], bss_end[];
int main(void);

__attribute__((used, noreturn, aligned(4))) static void harness_fault(void) {
    harness_print("the processor faulted\n");
    harness_exit(2);
    for (;;) {
    }
}

__attribute__((used)) static void harness_reset(void) {
    const volatile uint8_t *from = data_load;
    for (volatile uint8_t *to = data_start; to < data_end; ++to) *to = *from++;
    for (volatile uint8_t *to = bss_start; to < bss_end; ++to) *to = 0;
    main();
}

__attribute__((naked, used, section(".vectors"))) void harness_vectors(void) {
    __asm__ volatile(
        ".option push\n.option norelax\nla gp, __global_pointer$\n.option pop\n"
        "la sp, stack_top\nla t0, harness_fault\n.option push\n.option arch, +zicsr\ncsrw mtvec, t0\n.option pop\n"
        "call harness_reset\n");
}
