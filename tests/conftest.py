"""One thread for torch in every test: sums, and so bits, depend on how many there are."""

import torch

torch.set_num_threads(1)
