"""Speed and memory, measured: of training steps, of loss kernels and of views."""
