package androidx.test.platform.app;

public abstract class InstrumentationRegistry {
    public static native android.app.Instrumentation getInstrumentation();
}
