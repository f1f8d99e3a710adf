"""What `facade demo` shows the main job with: an upstream registry and an image made on the spot."""
