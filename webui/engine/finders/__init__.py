"""What finds things in pictures: networks in ONNX files, and arithmetic for the embedded model's."""
