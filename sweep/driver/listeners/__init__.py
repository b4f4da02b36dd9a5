"""Who else is told what the driver does: a command, TensorBoard, Weights & Biases, MLflow."""
