"""What one worker owns of the training state: tensors, retained gradients and the position in the run."""
