"""Tempo: confidential deep learning on GPUs nobody has to trust. The public names, nothing else."""
