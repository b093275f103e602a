"""What an evaluator does while it waits for a slow network: work that it would have to do anyway, and that depends on
no message. Masks of parameters are drawn (`drawn.py`), and products of masks with parameters are made
(`rehearsed.py`). The words that come out are those that come out without; nothing here is sent. It must not know
models.
"""
