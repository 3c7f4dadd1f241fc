"""Similarity of images and encodings, against scikit-learn and cases whose answer is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from fl_ppae.leakage.similarity import resize_images_to, similarity, similarity_by_pair


def images(count: int = 40, shape: tuple[int, ...] = (3, 8, 8), seed: int = 0) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def test_an_encoding_that_is_the_image():
    report = similarity(images(), images())
    assert report.cosine == pytest.approx(1)
    assert report.cosine_centred == pytest.approx(1)
    assert 0.6 < report.cosine_mismatched < 0.9  # positive pixels: unrelated images look alike
    assert report.retrieval_top1 == 1
    assert report.records == 40


def test_an_orthogonal_map_hides_from_the_cosine_and_inverts_exactly():
    x = images(300)
    basis, _ = torch.linalg.qr(torch.randn(192, 192, generator=torch.Generator().manual_seed(1)))
    encodings = (x.flatten(1) @ basis).view_as(x)
    report = similarity(x, encodings)
    assert abs(report.cosine) < 0.2
    assert abs(report.cosine_centred) < 0.1
    assert report.retrieval_top1 < 0.1
    known, seen = encodings[:200].flatten(1).double(), encodings[200:].flatten(1).double()
    inverse = torch.linalg.lstsq(known, x[:200].flatten(1).double()).solution  # from 200 known pairs
    torch.testing.assert_close(seen @ inverse, x[200:].flatten(1).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(3, 8, 8), (16, 2, 2), (4, 3, 5), (192,), (49,), (300,)])
def test_against_scikit_learn(shape):
    x, z = images(), torch.randn(40, *shape, generator=torch.Generator().manual_seed(1))
    left, right = resize_images_to(x, shape).double().numpy(), z.flatten(1).double().numpy()
    plain = cosine_similarity(left, right)
    centred = cosine_similarity(right - right.mean(0), left - left.mean(0))
    report = similarity(x, z)
    assert report.cosine == pytest.approx(np.diag(plain).mean(), abs=1e-6)
    assert report.cosine_mismatched == pytest.approx(plain[~np.eye(40, dtype=bool)].mean(), abs=1e-6)
    assert report.cosine_centred == pytest.approx(np.diag(centred).mean(), abs=1e-6)
    assert report.retrieval_top1 == pytest.approx((centred.argmax(1) == np.arange(40)).mean())


def test_order_and_scale_do_not_matter():
    x, z = images(), torch.randn(40, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    expected = dataclasses.astuple(similarity(x, z))
    assert dataclasses.astuple(similarity(x[order], z[order])) == pytest.approx(expected)
    assert dataclasses.astuple(similarity(x, 1000 * z)) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(5,), (192,), (3, 8, 8), (16, 2, 2)])
@pytest.mark.parametrize("value", [0, 0.1, -3.3, 1e-20, 1e20])
@pytest.mark.parametrize("records", [2, 40])
def test_an_encoding_that_shows_nothing_is_retrieved_by_chance(shape, value, records):
    report = similarity(images(records), torch.full((records, *shape), value))
    assert all(math.isfinite(number) for number in dataclasses.astuple(report))
    assert report.cosine_centred == 0
    assert report.retrieval_top1 == pytest.approx(1 / records)
    assert report.cosine == pytest.approx(report.cosine_mismatched)
    assert np.sign(report.cosine) == np.sign(value)


@pytest.mark.parametrize("encodings", [images(20), torch.zeros(20, 5)])
def test_images_that_are_all_alike_are_retrieved_by_chance(encodings):
    report = similarity(images(1).repeat(20, 1, 1, 1), encodings)
    assert all(math.isfinite(number) for number in dataclasses.astuple(report))
    assert report.cosine_centred == 0
    assert report.retrieval_top1 == pytest.approx(1 / 20)


def test_ties_share_first_place():
    x = images(10).repeat(2, 1, 1, 1)  # every image twice
    assert similarity(x, x).retrieval_top1 == pytest.approx(0.5)


def test_a_black_image_gives_no_nan():
    x = images()
    x[3] = 0
    assert similarity(x, x).cosine == pytest.approx(39 / 40)


def test_retrieval_in_blocks_is_retrieval():
    x = images(1100, (1, 4, 4))
    assert similarity(x, x).retrieval_top1 == 1


def test_resizing():
    x = images(2)
    assert torch.equal(resize_images_to(x, (3, 8, 8)), x.flatten(1))
    assert torch.allclose(resize_images_to(x, (1, 1, 1)).squeeze(1), x.mean((1, 2, 3)))
    assert torch.allclose(resize_images_to(x, (3, 1, 1)), x.mean((2, 3)))
    assert torch.equal(resize_images_to(x, (192,)), x.flatten(1))
    assert torch.allclose(resize_images_to(x, (2,))[:, 0], x.flatten(1)[:, :96].mean(1))
    with pytest.raises(ValueError, match="not"):
        resize_images_to(x, (3, 8))


def test_too_few_or_unequal_pairs():
    with pytest.raises(ValueError, match="two or more"):
        similarity(images(1), images(1))
    with pytest.raises(ValueError, match="3 images, 4 encodings"):
        similarity(images(3), images(4))


@pytest.mark.parametrize("shape", [(3, 8, 8), (16, 2, 2), (49,)])
def test_top_5_against_a_sort(shape):
    x, z = images(), torch.randn(40, *shape, generator=torch.Generator().manual_seed(1))
    rows = resize_images_to(x, shape)
    z = z + ((rows - rows.mean(0)) / rows.std(0) * 2 / rows.shape[1] ** 0.5).view(40, *shape)
    left, right = resize_images_to(x, shape).double().numpy(), z.flatten(1).double().numpy()
    centred = cosine_similarity(right - right.mean(0), left - left.mean(0))
    first = np.argsort(-centred, axis=1)[:, :5]
    expected = [index in row for index, row in enumerate(first)]
    pairs = similarity_by_pair(x, z)
    assert pairs.retrieval_top5.tolist() == [float(hit) for hit in expected]
    assert 0 < sum(expected) < 40
    assert bool((pairs.retrieval_top5 >= pairs.retrieval_top1).all())


@pytest.mark.parametrize("records", [3, 5, 40])
def test_top_5_of_an_encoding_that_shows_nothing_is_a_guess(records):
    pairs = similarity_by_pair(images(records), torch.zeros(records, 7))
    assert pairs.retrieval_top5.mean().item() == pytest.approx(min(1, 5 / records))


def test_pairs_that_do_not_belong_together_by_pair():
    x, z = images(), torch.randn(40, 192, generator=torch.Generator().manual_seed(1))
    plain = cosine_similarity(z.double().numpy(), x.flatten(1).double().numpy())
    np.fill_diagonal(plain, 0)
    expected = torch.from_numpy(plain.sum(1) / 39)
    torch.testing.assert_close(similarity_by_pair(x, z).cosine_mismatched, expected, atol=1e-6, rtol=0)
