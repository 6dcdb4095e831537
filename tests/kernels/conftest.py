"""Where there is no GPU, Triton kernels are interpreted: it decides when it is imported."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
