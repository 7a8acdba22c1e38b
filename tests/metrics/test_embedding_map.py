import sys

import numpy as np
import pytest
import torch

from lit_ssl.errors import InputError
from lit_ssl.metrics.embedding_map import pca_map, umap_map


def features(count, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(3, 0.1, width)
    return torch.randn(count, width, generator=generator) * scale + 5


@pytest.mark.parametrize(("count", "width"), [(50, 7), (7, 50), (9, 9), (2, 3), (3, 2)])
def test_pca_as_scikit_learn(count, width):
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = features(count, width)
    found = pca_map(x)
    reference = decomposition.PCA(2).fit(x.double().numpy())
    points = reference.transform(x.double().numpy())
    signs = np.sign((points * found.points.numpy()).sum(0))
    np.testing.assert_allclose(found.points.numpy() * signs, points, atol=1e-4)
    np.testing.assert_allclose(found.shares.numpy(), reference.explained_variance_ratio_, atol=1e-5)


def test_pca_of_little():
    one = pca_map(features(1, 4))
    assert one.points.tolist() == [[0, 0]]
    assert one.shares.tolist() == [0, 0]
    equal = pca_map(features(1, 4).expand(6, -1) / 3)
    assert not equal.points.any()
    assert not equal.shares.any()
    line = pca_map(torch.tensor([[1.0], [2.0], [4.0]]))
    assert line.points.shape == (3, 2)
    assert line.shares.tolist() == [1, 0]


def test_half_precision_is_taken():
    assert pca_map(features(20, 4).half()).points.dtype == torch.float32


@pytest.mark.parametrize("function", [pca_map, umap_map])
def test_what_cannot_be_laid_out(function):
    if function is umap_map:
        pytest.importorskip("umap")
    x = features(8, 4)
    x[3, 1] = torch.nan
    with pytest.raises(InputError, match="finite features"):
        function(x)
    with pytest.raises(InputError, match=r"N >= 1|at least 5 rows"):
        function(x[:0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_umap_keeps_groups_together():
    pytest.importorskip("umap")
    groups = torch.arange(60) % 3
    x = torch.eye(3)[groups] * 8 + torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    points = umap_map(x, seed=1)
    assert torch.equal(points, umap_map(x, seed=1))
    nearest = torch.cdist(points, points).fill_diagonal_(torch.inf).argmin(1)
    assert (groups[nearest] == groups).float().mean() > 0.9
    assert umap_map(x[:5]).shape == (5, 2)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setattr("lit_ssl.metrics.embedding_map.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'lit-ssl\[umap\]'"):
        umap_map(features(8, 4))
