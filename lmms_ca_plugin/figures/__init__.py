"""Figures: one file per figure, each a pure function from a tidy table (or what was found) to a matplotlib Figure.

    figure = curve(table, Caption("llava-hf/llava-1.5-7b-hf", "95 % intervals, clustered by picture"), x_label="Block")
    save(figure, Path("layers.pdf"))

They import results only: neither a model nor the harness is needed to draw what was measured. No global state of
matplotlib's is used.
"""
