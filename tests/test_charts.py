"""Charts: measured of a whole matrix, read from an extract, sampled fairly, kept once."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from lib import artifacts, paths
from lib.analysis import charts
from lib.extraction import planted, specimens
from tests.small import specimen_of

SEED = 42


def test_the_chart_of_a_whole_matrix_is_its_principal_components():
    planted = specimens.open("planted")
    chart = charts.chart(planted)
    values = planted.values(slice(None)).astype(np.float64)
    centred = values - values.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(values))
    assert np.allclose(chart.variances[:3], variances[::-1][:3], rtol=1e-4)
    assert chart.trace == pytest.approx(variances.sum(), rel=1e-4)
    first = np.abs(values @ axes[:, -1])
    assert np.allclose(np.abs(chart.projection[:, 0]), first, atol=1e-3 * first.max())
    assert np.allclose(chart.centre, values[chart.dead].mean(axis=0))
    assert 0 < chart.dead.sum() < 0.1 * len(values)


def test_the_chart_of_the_extract_agrees_with_its_rows():
    coder = specimens.open("qwen2.5-coder-0.5b")
    if coder.is_full:
        pytest.skip("the whole matrix is at hand; its chart is tested on the planted one")
    chart = charts.chart(coder)
    again = coder.dead_rows.astype(float) @ coder.array("axes")[:, :3].astype(float)
    assert np.allclose(chart.projection[coder.dead_ids], again, atol=1e-5)
    assert chart.dead.sum() == len(coder.dead_ids)
    assert 0.04 < chart.shares[:3].sum() < 0.06


@pytest.mark.parametrize("id", ["qwen2.5-coder-0.5b", "planted"])
def test_a_sample_stands_for_the_whole_vocabulary(id):
    W = specimens.open(id)
    chart = charts.chart(W)
    drawn = charts.sample(W, chart, 150, seed=SEED)
    assert drawn.weights.sum() == pytest.approx(W.rows)
    assert (~drawn.dead).sum() == 150
    assert drawn.dead.sum() == chart.dead.sum()
    assert len(set(drawn.ids)) == len(drawn.ids)
    assert np.allclose(np.linalg.norm(drawn.rows, axis=1), W.norms[drawn.ids], rtol=1e-4)
    again = charts.sample(W, chart, 150, seed=SEED)
    assert np.array_equal(drawn.ids, again.ids)
    rough = drawn.covariance()
    assert np.trace(rough) == pytest.approx(chart.trace, rel=0.1)


def test_a_fetched_matrix_is_measured_once_and_its_chart_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ARTIFACTS", tmp_path / "made")
    bits, _ = planted.matrix(rows=3_000, dim=200, seed=1)
    save_file({"W": bits}, tmp_path / "w.safetensors", {"provenance": "{}"})
    W = specimens.open(str(tmp_path / "w.safetensors"))
    monkeypatch.setattr(specimens, "open", lambda id: W)
    in_memory = charts.chart(specimen_of("planted", bits, source="here"))
    kept = charts.chart(W)
    for name in ("projection", "dead", "distances", "centre", "mean", "variances"):
        assert np.array_equal(getattr(kept, name), getattr(in_memory, name)), name
    assert "void" in kept.cluster and len(artifacts.every()) == 1
    monkeypatch.setattr(charts, "measure", None)
    assert np.array_equal(charts.chart(W).projection, kept.projection)  # not measured again
    [file] = artifacts.every()
    assert artifacts.opened(file).provenance["parameters"] == {"specimen": "w"}
