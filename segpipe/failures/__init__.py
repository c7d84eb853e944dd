"""Where a model errs and what it looked at. `explain.py` is the engine; it puts the other files together in this order:

regions, modes    error regions of an image, their measures and their kind
selection         which of them are explained
look, gradcam     the network is asked; maps before the ReLU, at the layer's resolution (grid: where its cells lie)
measures          where the evidence of a pair of maps lies, and a first reading of it
tables, summary   what the errors cost; the three files of failures/<experiment>/
pictures, page    reports/<experiment>/failures/index.html
"""
