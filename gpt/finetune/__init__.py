"""Fine-tuning: what a pretrained model learns further, one file a method.

Each method is a task for the one training loop (gpt/training/): `python -m gpt.finetune METHOD`.
Read settings.py (what all methods have), epochs.py (their batches) and tune.py (the order of
things), then the methods: classify.py, instruct.py, distill.py, reward.py, dpo.py, grpo.py.
What reward.py and dpo.py learn from is in pairs.py, and what they have in common in pair_task.py;
dpo.py compares with reference.py, and kto.py is its method for single answers. The parts of grpo.py
are rewards.py, answers.py and policy_gradient.py.
"""
