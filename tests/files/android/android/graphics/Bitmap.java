package android.graphics;

public abstract class Bitmap {
    public static native Bitmap createScaledBitmap(Bitmap source, int width, int height, boolean filter);

    public static native Bitmap createBitmap(Bitmap source, int x, int y, int width, int height, Matrix m, boolean filter);

    public abstract int getWidth();

    public abstract int getHeight();

    public abstract void getPixels(int[] pixels, int offset, int stride, int x, int y, int width, int height);
}
