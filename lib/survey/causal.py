"""The causal metric: lengths and angles that do not depend on how the logits are written down.

A model's probabilities stay the same when hidden states are mapped by any invertible A and rows by
the inverse transpose: Euclidean lengths of rows do not. Park et al. (2024) single out the inner
product <a, b> = a^T Cov(W)^-1 b, under which directions that vary independently over the vocabulary
are orthogonal. It is used here as a lens: the same rows, another ruler.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from lib.survey.geometry import GeometryError, as_floats


@dataclass(frozen=True)
class CausalMetric:
    """<a, b> = (L a) . (L b) with L = (Cov + ridge * mean variance * I)^(-1/2)."""

    mean: np.ndarray  # (dim,) float64
    lens: np.ndarray  # (dim, dim) float64, symmetric
    condition: float  # largest over smallest variance that was inverted

    def coordinates(self, rows: np.ndarray, *, centred: bool = True) -> np.ndarray:
        """(n, dim) -> (n, dim) float64 rows as the metric sees them: plain geometry from here on.

        centred: measured from the mean row (distances do not care, lengths and angles do).
        """
        values = as_floats(rows)
        return (values - self.mean if centred else values) @ self.lens


def metric(cov: np.ndarray, mean: np.ndarray, *, ridge: float) -> CausalMetric:
    """The causal metric of a (dim, dim) covariance, regularised.

    ridge: added to every variance, as a fraction of the mean variance. A covariance estimated from
    fewer rows than a few times dim has variances that are far too small; their inverses would
    rule the metric. Raises GeometryError if a variance is not positive even so.
    """
    if ridge < 0:
        raise GeometryError(f"a ridge is not negative: {ridge}")
    variances, axes = linalg.eigh(cov)
    variances = variances + ridge * np.trace(cov) / len(cov)
    if variances[0] <= 1e-14 * variances[-1]:
        raise GeometryError("the covariance cannot be inverted; give a larger ridge")
    lens = (axes / np.sqrt(variances)) @ axes.T
    return CausalMetric(np.asarray(mean, float), lens, float(variances[-1] / variances[0]))
