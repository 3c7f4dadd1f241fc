import pytest
import torch

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.models import scattering
from fl_ppae.models.augment import orientations
from fl_ppae.models.autoencoders import build_autoencoder, encoding_shape
from fl_ppae.models.isolation import check_isolated
from fl_ppae.models.scattering import FEATURES, Scattering, drawn_images


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(6, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def test_all_eight_orientations_have_one_code(images: torch.Tensor) -> None:
    encoder = Scattering(3)
    codes = torch.stack([encoder(view) for view in orientations(images)])
    torch.testing.assert_close(codes, codes[:1].expand_as(codes), rtol=0, atol=1e-4)
    assert (codes[0, 0] - codes[0, 1]).abs().max() > 0.05  # but other images have others


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 28), (3, 32)])
def test_codes_are_bounded_and_of_one_length(channels: int, size: int) -> None:
    codes = Scattering(channels)(drawn_images(20, channels)[..., :size, :size])
    assert codes.shape == (20, FEATURES * channels)
    assert codes.abs().max() <= 1
    assert codes.norm(dim=1).max() <= 3.3 + 1e-4


def test_an_image_is_encoded_alone_and_nothing_of_the_encoder_can_be_sent(images: torch.Tensor) -> None:
    autoencoder = build_autoencoder("scatter", 0, (3, 28, 28), 0)
    check_isolated(autoencoder.encoder)
    assert not autoencoder.encoder.state_dict()
    together = autoencoder.encoder(images)
    alone = torch.cat([autoencoder.encoder(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert autoencoder(images).shape == images.shape


def test_wavelets_see_waves_at_their_own_angle_and_no_constant() -> None:
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    waves = 0.75 * torch.pi * torch.stack([columns, rows])
    seen = scattering._moduli(torch.cat([waves.cos(), torch.ones(1, 28, 28)])[:, None]).mean((2, 3))
    assert seen[:2].argmax(1).tolist() == [0, 4]  # along a row, along a column: 90 degrees are four angles
    assert seen[2].max() < 1e-4 < seen[:2].max() / 100


def test_whitening_evens_out_the_features_of_drawn_images() -> None:
    centre, whitening = scattering._constants(1)
    evened = (scattering._features(drawn_images(1000, 1)) - centre) @ whitening
    variances = torch.linalg.eigvalsh(torch.cov(evened.T))
    assert evened.mean(0).abs().max() < 0.01
    assert variances[-1] == pytest.approx(1, abs=0.02)
    assert variances.median() > 0.9
    before = torch.linalg.eigvalsh(torch.cov(scattering._features(drawn_images(1000, 1)).T))
    assert before[-1] > 100 * before.median()


def test_drawn_images_are_the_same_everywhere_and_not_the_same_image() -> None:
    once, again = drawn_images(3, 3), drawn_images(3, 3)
    assert torch.equal(once, again) and once.min() >= 0 and once.max() <= 1
    assert not torch.equal(once[0], once[1])


@pytest.mark.parametrize(("size", "shape"), [(100, (3, 28, 28)), (0, (3, 28, 13))])
def test_sizes_that_do_not_fit_are_refused(size: int, shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="scatter"):
        encoding_shape("scatter", size, shape)


def test_an_encoder_without_parameters_is_not_trained() -> None:
    with pytest.raises(UserError, match='use trains = "head"'):
        RunConfig.from_flat({"autoencoder": "scatter"})
