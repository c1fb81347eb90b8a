"""A greenhouse's next state from its state, its controls and the weather: a simulation, a teacher and a student.

``model.py:create_teacher`` and ``model.py:create_student`` are sources that every exporter accepts; ``held_out.npz``
holds four weeks that nothing was trained on; ``data.py:training_batches`` simulates the weeks that train;
``train.py`` makes the weights and the held-out weeks again.
"""
