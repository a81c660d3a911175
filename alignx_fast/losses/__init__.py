"""The terms of the training loss, one module each.

A loss owns its settings and its weight, its parameters, what it reads of the forward pass, its value over a micro-batch or over the whole step,
what it costs in memory and time, and the name the report gives it. The optimizer step, the memory plan and the report go over the list of losses
and know none of them.

To add a loss, write one module with a `LossSettings` and a `Loss` (`apart.py` is a complete example) and add its settings as one field of
`alignx_fast.config.AlignSettings`.
"""
