"""How good is the cheap choice? The measurement that says which strategy `make photos` takes.

``python -m lib.study run`` trains, ``python -m lib.study people`` compares with what people use,
``python -m lib.study figures`` writes table and figure from the rows. docs/choice.md has the
protocol, which `protocol` holds as data.
"""
