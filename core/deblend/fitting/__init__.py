"""The fit of blends.

In the order of the algorithm: `observation` (data, weights, kernels), `components` (morphologies
on stamps), `initialize` (where they start), `render` and `spectra` (least squares for fluxes),
`start` (first spectra), `fit` (the iteration) and `live` (the blends in it), `evaluate` (loss and
gradients), `sharpen`, `majorize` (the step), its constraints in `operators`, `monotonic` and
`mirror`, and `converge` (when to stop). As scarlet lite does it: `reference` (start), `adaprox`
(steps).
"""
