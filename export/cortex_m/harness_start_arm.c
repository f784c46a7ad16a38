/* Start-up code for Arm Cortex-M: vector table, initialised memory, floating-point and vector unit enabled. */
#include "harness.h"

extern uint8_t stack_top[], data_start[], data_end[], data_load[], bss_start[], bss_end[];
int main(void);

void harness_reset(void) {
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    /* CPACR: full access to coprocessors 10 and 11 (Armv8-M Architecture Reference Manual, D1.2.10) */
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
    __asm__ volatile("dsb\nisb" ::: "memory");
#endif
    const volatile uint8_t *from = data_load;
    for (volatile uint8_t *to = data_start; to < data_end; ++to) *to = *from++;
    for (volatile uint8_t *to = bss_start; to < bss_end; ++to) *to = 0;
    main();
}

static void harness_fault(void) {
    harness_print("the processor faulted\n");
    harness_exit(2);
}

__attribute__((section(".vectors"), used)) const void *const harness_vectors[16] = {
    stack_top,     harness_reset, harness_fault, harness_fault, harness_fault, harness_fault, harness_fault,
    harness_fault, harness_fault, harness_fault, harness_fault, harness_fault, harness_fault, harness_fault,
    harness_fault, harness_fault,
};
