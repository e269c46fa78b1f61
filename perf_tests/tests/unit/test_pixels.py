"""Looking at images that are known to be wrong, and at ones that are not."""

import numpy as np
import pytest
from skimage import metrics

from diffusers_perf.records import pixels
from diffusers_perf.records.measurement import IDENTICAL_DB, Distance
from diffusers_perf.records.pixels import Images


@pytest.fixture
def images() -> Images:
    draw = np.random.default_rng(0)
    coarse = draw.random((2, 8, 8, 3), dtype=np.float32)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def test_mean_is_that_of_the_darkest_image(images: Images) -> None:
    images[1] = 0
    assert pixels.look(images).mean == 0


def test_solid_colour_is_uniform_though_its_channels_differ(images: Images) -> None:
    images[1] = np.array([0.9, 0.1, 0.5], dtype=np.float32)
    assert pixels.look(images).std == pytest.approx(0, abs=1e-3)


def test_nan_in_one_image_is_detected(images: Images) -> None:
    assert pixels.look(images).finite
    images[1, 3, 3, 0] = np.nan
    assert not pixels.look(images).finite


def test_distance_is_that_of_the_worst_pair(images: Images) -> None:
    other = images.copy()
    other[1] += 0.1
    seen = pixels.distance(other, images)
    assert seen.psnr_db == pytest.approx(20, abs=0.01)  # an error of 0.1 everywhere is 20 dB
    assert pixels.distance(images, images) == Distance(psnr_db=IDENTICAL_DB, ssim=1.0)


def test_psnr_matches_skimage() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.random((2, 3, 32, 32, 3), dtype=np.float32)
    other[1] = one[1] + 1e-4 * draw.standard_normal(one[1].shape, dtype=np.float32)
    for a, b in ((one[:1], other[:1]), (one[1:2], other[1:2])):
        expected = metrics.peak_signal_noise_ratio(b[0], a[0], data_range=1.0)
        assert pixels.distance(a, b).psnr_db == pytest.approx(expected, abs=1e-9)


def test_images_in_another_order_are_far(images: Images) -> None:
    assert pixels.distance(images[::-1], images).psnr_db < 15


def test_other_shapes_are_refused(images: Images) -> None:
    with pytest.raises(pixels.NotComparable, match="those that they are compared with have shape"):
        pixels.distance(images, images[:1])


@pytest.mark.parametrize(
    ("shape", "small"), [((512, 512), (64, 64)), ((96, 64), (64, 43)), ((48, 40), (48, 40))]
)
def test_thumbnail_is_the_mean_of_every_pixel(
    shape: tuple[int, int], small: tuple[int, int]
) -> None:
    draw = np.random.default_rng(0).random((2, *shape, 3), dtype=np.float32)
    assert pixels.thumbnail(draw).shape == (2, *small, 3)
    even = np.full_like(draw, 0.5)
    assert np.allclose(pixels.thumbnail(even), 0.5, atol=1e-6)
    for edge in ((0, 0), (-1, -1)):
        changed = even.copy()
        changed[1, edge[0], edge[1]] = 1.0
        assert pixels.thumbnail(changed)[1][edge].min() > 0.5


def test_thumbnail_of_whole_blocks_is_their_mean(images: Images) -> None:
    large = images.repeat(4, axis=1).repeat(4, axis=2)
    assert np.allclose(pixels.thumbnail(large), images, atol=1e-6)
