/* MicroAllocator and MicroResourceVariables; see micro_interpreter.h beside this file. */
#pragma once
#include "tensorflow/lite/micro/micro_interpreter.h"
