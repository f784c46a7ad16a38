package androidx.camera.core;

public interface ImageProxy extends AutoCloseable {
    @Override
    void close();

    android.graphics.Bitmap toBitmap();

    ImageInfo getImageInfo();
}
