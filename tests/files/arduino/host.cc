/* Runs a sketch once on the host. */
#include "Arduino.h"

#include <stdio.h>

Stream Serial;
void Stream::begin(unsigned long) {}
void Stream::print(const char *text) { fputs(text, stdout); }
void Stream::print(int number) { printf("%d", number); }
void Stream::print(unsigned long number) { printf("%lu", number); }
void Stream::println(const char *text) { puts(text); }
unsigned long micros(void) { return 0; }
void delay(unsigned long) {}

int main(void)
{
    setup();
    loop();
    return 0;
}
