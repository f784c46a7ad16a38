/* As much of Arduino's interface as the example sketch uses, printing to standard output. */
#pragma once
#include <stdint.h>

struct Stream {
    void begin(unsigned long rate);
    explicit operator bool() const { return true; }
    void print(const char *text);
    void print(int number);
    void print(unsigned long number);
    void println(const char *text);
};

extern Stream Serial;
unsigned long micros(void);
void delay(unsigned long milliseconds);
void setup(void);
void loop(void);
