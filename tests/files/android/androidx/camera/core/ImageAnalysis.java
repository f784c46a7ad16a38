package androidx.camera.core;

public abstract class ImageAnalysis {
    public interface Analyzer {
        void analyze(ImageProxy image);
    }
}
