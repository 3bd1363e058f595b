"""``python -m bench``: the figures the product promises, measured on this machine.

It measures the agent from outside, stands beside it in the tree, and is not in the wheel. Its ``--help``
says what there is.
"""
