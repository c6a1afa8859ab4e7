"""Training: the loop, what a task is, pretraining (the first task), and what a run keeps."""
