/* The model's functions for the class @@package.NativeModel, which lets one thread in at a time. */
#include <jni.h>

#include "@@name.h"

static @@in_type input[@@{NAME}_INPUT_SIZE];
static @@out_type output[@@{NAME}_OUTPUT_SIZE];
static jint wide_input[@@{NAME}_INPUT_SIZE], wide_output[@@{NAME}_OUTPUT_SIZE];

JNIEXPORT void JNICALL Java_@@{jni}_NativeModel_invoke(JNIEnv *env, jobject model, jintArray given, jintArray found) {
    (void)model;
    (*env)->GetIntArrayRegion(env, given, 0, @@{NAME}_INPUT_SIZE, wide_input);
    if ((*env)->ExceptionCheck(env)) return; /* an array of another size */
    for (int i = 0; i < @@{NAME}_INPUT_SIZE; ++i) input[i] = (@@in_type)wide_input[i];
    @@{name}_invoke(input, output);
    for (int i = 0; i < @@{NAME}_OUTPUT_SIZE; ++i) wide_output[i] = output[i];
    (*env)->SetIntArrayRegion(env, found, 0, @@{NAME}_OUTPUT_SIZE, wide_output);
}

JNIEXPORT void JNICALL Java_@@{jni}_NativeModel_begin(JNIEnv *env, jobject model) {
    (void)env;
    (void)model;
    @@begin
}
