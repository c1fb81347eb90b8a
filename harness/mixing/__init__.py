"""Mixed precision: each layer gets the bits that it needs, judged in a simulation that runs anywhere.

`network.py` finds the layers, `grids.py` and `calibration.py` say how numbers are rounded, `simulate.py` puts the
rounding into a graph, `sensitivity.py` measures what it does, `work.py` and `energy.py` what it saves, `assign.py`
chooses the bits and `judge.py` judges the choice. All that opens a model runs in a child, which is `worker.py`.
"""
