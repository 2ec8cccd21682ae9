"""A simulated frontal chest radiograph: a patient, its projected tissues, the beam, and overlays.

Imports go one way: `canvas` <- `patient` <- {`trunk`, `skeleton`, `lung_detail`} <- `beam` <- `overlays`.
Lengths are centimetres. x grows to the right of the picture (the patient's left), y downwards, and the
origin lies on the midline at the height of the lungs' apices.

Functions named `project_...` and `draw_...` return what the beam crosses of a tissue; `draw_...` uses random
numbers. Functions named `add_...` change a picture in place.
"""
