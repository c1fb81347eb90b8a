"""Two networks for mixed precision, trained on CIFAR-10: a ResNet-20 and a small vision transformer.

``model.py:resnet20`` and ``model.py:vit`` are sources that every exporter accepts; ``data.py`` makes samples of
CIFAR-10, ``augment.py:shift_and_mirror`` changes batches that train, ``train.py`` makes the weights again, and
``shapes.py`` has two larger networks with random weights.
"""
