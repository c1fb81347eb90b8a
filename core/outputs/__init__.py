"""What models give: comparing outputs with FP32's, streamed over samples."""
