"""Fine-tuning: what a pretrained model learns further, one file a method.

Each method is a task for the one training loop (gpt/training/): `python -m gpt.finetune METHOD`.
Read settings.py (what all methods have), epochs.py (their batches) and tune.py (the order of
things), then the methods: classify.py, instruct.py, distill.py, reward.py, dpo.py, grpo.py. The
last one's parts are rewards.py, answers.py and policy_gradient.py.
"""
