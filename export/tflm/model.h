/* The model @@model as bytes: generated, do not edit. */
#ifndef @@{NAME}_MODEL_H
#define @@{NAME}_MODEL_H

/* Aligned to 16 bytes, because TensorFlow Lite Micro reads the weights in place. */
extern const unsigned char @@{name}_model[@@size];

#endif
