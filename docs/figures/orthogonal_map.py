"""An encoding with cosine near 0 that is inverted almost perfectly: a random orthogonal map of the image.

Prints the numbers and draws the figure of docs/leakage.md:

    python docs/figures/orthogonal_map.py BLOODMNIST.npz docs/orthogonal_map.png

The attacker is ridge regression on 1,712 known pairs, the official validation split; it is tested on 500
images of the test split. For comparison the same attacker on encodings of pure noise.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from fl_ppae.data.npz import read_npz
from fl_ppae.data.records import to_float
from fl_ppae.data.registry import DATASETS
from fl_ppae.leakage.dependence import distance_correlation, distances, linear_cka, products
from fl_ppae.leakage.image_quality import class_mean_images, image_quality, mean_images
from fl_ppae.leakage.linear_inversion import fit_linear
from fl_ppae.leakage.similarity import similarity_by_pair
from fl_ppae.plotting import plot_image_rows

TESTED, DRAWN, SEED = 500, 10, 0


def main(data_file: Path, figure: Path) -> None:
    """Measure and attack the encodings, print a table, draw originals, encodings and reconstructions."""
    spec = DATASETS["bloodmnist"]
    with tempfile.TemporaryDirectory() as scratch:  # what is mapped outlives its name
        arrays = read_npz(data_file, spec, Path(scratch))
    known, tested = to_float(arrays["val_images"]), to_float(arrays["test_images"][:TESTED])
    labels = {part: torch.from_numpy(arrays[f"{part}_labels"]) for part in ("val", "test")}
    generator = torch.Generator().manual_seed(SEED)
    pixels = known[0].numel()
    basis, _ = torch.linalg.qr(torch.randn(pixels, pixels, generator=generator))

    def rotate(images: Tensor) -> Tensor:
        return (images.flatten(1) @ basis).view_as(images)

    encodings = {
        "orthogonal map": (rotate(known), rotate(tested)),
        "pure noise": tuple(torch.randn(images.shape, generator=generator) for images in (known, tested)),
    }
    made = {}
    for name, (held, seen) in encodings.items():
        made[name] = fit_linear(held, known).decode(seen)
        pairs, quality = similarity_by_pair(tested, seen), image_quality(tested, made[name])
        print(f"\n{name}: {len(known)} known pairs, {TESTED} unseen images")
        for metric in ("cosine", "cosine_mismatched", "cosine_centred", "retrieval_top1", "retrieval_top5"):
            print(f"  {metric:22}{getattr(pairs, metric).mean().item():8.3f}")
        print(f"  {'distance correlation':22}{distance_correlation(distances(tested), distances(seen)):8.3f}")
        print(f"  {'linear CKA':22}{linear_cka(products(tested), products(seen)):8.3f}")
        print(f"  {'inversion SSIM':22}{quality.ssim.mean():8.3f}")
        print(f"  {'inversion PSNR':22}{quality.psnr.mean():8.2f} dB")
    floors = {
        "mean image": mean_images(known, TESTED),
        "class-mean image": class_mean_images(known, labels["val"], labels["test"][:TESTED]),
    }
    print("\nfloors")
    for name, guess in floors.items():
        quality = image_quality(tested, guess)
        print(f"  {name:22}{quality.ssim.mean():8.3f} SSIM {quality.psnr.mean():8.2f} dB")
    shown = encodings["orthogonal map"][1][:DRAWN]
    rows = {
        "image": tested[:DRAWN],
        "encoding (scaled to show)": (shown / (4 * shown.std()) + 0.5).clamp(0, 1),
        "inverted": made["orthogonal map"][:DRAWN],
        "from pure noise": made["pure noise"][:DRAWN],
        "class-mean image": floors["class-mean image"][:DRAWN],
        "mean image": floors["mean image"][:DRAWN],
    }
    cosine = similarity_by_pair(tested, encodings["orthogonal map"][1]).cosine.mean().item()
    title = f"A random orthogonal map: cosine {cosine:.2f}, inverted by a linear map"
    source = f"{spec.title} (file {data_file.name})"
    plot_image_rows({name: images.numpy() for name, images in rows.items()}, figure, title, source)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
