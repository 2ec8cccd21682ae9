"""A frontal chest radiograph, simulated: a patient, its projected tissues, the beam and the film's edges.

Arrows go one way: `canvas` <- `patient` <- {`trunk`, `skeleton`, `lung_detail`} <- `beam` <- `overlays`.
Lengths are centimetres; x grows to the right of the picture (the patient's left), y downwards, and the
origin lies on the midline at the height of the lungs' apices.
"""
