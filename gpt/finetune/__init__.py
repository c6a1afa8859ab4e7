"""Fine-tuning: what a pretrained model learns further, one file a method.

Each method is a task for the one training loop (gpt/training/): `python -m gpt.finetune METHOD`.
Read settings.py (what all methods have), epochs.py (their batches) and tune.py (the order of
things), then the methods, each with what only it needs:

    classify.py     labels.py (what is right for a text), scores.py (what the model says of texts)
    instruct.py     conversations.py (records, templates and parts, for the other methods too)
    distill.py
    reward.py       pairs.py (records of two answers), pair_task.py (what dpo.py shares with it)
    dpo.py          reference.py (the model at the start), kto.py (single answers)
    grpo.py         answers.py, rewards.py, policy_gradient.py (the mathematics)
"""
