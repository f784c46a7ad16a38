/* Calls jni.c as Java does, with arrays of its own: golden lines from stdin, outputs to stdout. */
#include <jni.h>
#include <stdio.h>
#include <string.h>

void INVOKE(JNIEnv *env, jobject model, jintArray given, jintArray found);

static void get(JNIEnv *env, jintArray array, jsize start, jsize count, jint *values) {
    (void)env;
    memcpy(values, (jint *)array + start, (size_t)count * sizeof *values);
}

static void set(JNIEnv *env, jintArray array, jsize start, jsize count, const jint *values) {
    (void)env;
    memcpy((jint *)array + start, values, (size_t)count * sizeof *values);
}

static jboolean check(JNIEnv *env) {
    (void)env;
    return JNI_FALSE;
}

int main(void) {
    static jint given[IN], found[OUT];
    struct JNINativeInterface_ functions = {
        .GetIntArrayRegion = get, .SetIntArrayRegion = set, .ExceptionCheck = check};
    JNIEnv env = &functions;
    int value;
    for (size_t count = 0; scanf("%d", &value) == 1;) {
        given[count++] = value;
        if (count < IN) continue;
        count = 0;
        INVOKE(&env, NULL, (jintArray)given, (jintArray)found);
        for (size_t i = 0; i < OUT; ++i) printf("%d%c", (int)found[i], i + 1 < OUT ? ' ' : '\n');
    }
    return 0;
}
