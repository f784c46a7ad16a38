/* The model @@model as bytes: generated, do not edit. */
#include "@@{name}_model.h"

alignas(16) extern const unsigned char @@{name}_model[@@size] = {
@@bytes
};
