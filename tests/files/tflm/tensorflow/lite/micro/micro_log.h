/* Declarations of what the kit calls; see micro_interpreter.h beside this file. */
#pragma once
void MicroPrintf(const char *format, ...);
