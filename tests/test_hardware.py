"""The device: chosen once, refused in one line, and no tensor stays on another device.

Without a CUDA device, fake tensors check the placement: they have shapes and devices but no values.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from support import records_of
from torch._subclasses.fake_tensor import FakeTensorMode

from fl_ppae import hardware
from fl_ppae.cli import main
from fl_ppae.config import RunConfig
from fl_ppae.data import records as data_records
from fl_ppae.data.acquisition import NO_SHIFT, hospital_shift
from fl_ppae.data.records import HospitalRecords, ResidentRecords, resident
from fl_ppae.hardware import CPU, device_of, exact_float32, usable_cores, uses_bfloat16
from fl_ppae.hospital.ceilings import limits_of, refusal
from fl_ppae.hospital.node_keys import read_node
from fl_ppae.hospital.training import TrainingTerms, train_round
from fl_ppae.leakage.reconstruction import probe_reconstruction_loss
from fl_ppae.models.autoencoders import NAMES, build_autoencoder
from fl_ppae.models.encoding import encode
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.privacy import per_sample
from fl_ppae.privacy.clipping import clipped_sum, per_sample_norms
from fl_ppae.privacy.per_sample import PerSampleGradients, half_precision
from fl_ppae.privacy.randomness import streams
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.server.classification import NetworkTraining, fit_and_score
from fl_ppae.simulation import superlink
from fl_ppae.simulation.superlink import Submission, _federation

IMAGE = (3, 12, 12)
CUDA = torch.device("cuda", 0)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def records() -> HospitalRecords:
    rng = np.random.default_rng(0)
    return records_of(rng.integers(0, 256, (60, 12, 12, 3)).astype(np.uint8), np.arange(60) % 4)


def model_of(name: str = "conv") -> LocalModel:
    autoencoder = build_autoencoder(name, 0, IMAGE, seed=1)
    return LocalModel(autoencoder.encoder, autoencoder.decoder)


@pytest.mark.usefixtures("no_cuda")
def test_auto_is_the_cpu_without_a_cuda_device() -> None:
    assert device_of("auto") == device_of("cpu") == CPU


def test_auto_uses_a_cuda_device_and_cpu_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto") == device_of("cuda") == CUDA
    assert device_of("cpu") == CPU


@pytest.mark.usefixtures("no_cuda")
def test_a_missing_device_is_reported_in_one_line_before_work_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / "run"
    options = ["-c", "device=cuda", "-c", "data-source=stand-in", "-c", f"output-dir={where}"]
    assert main(["run", "pathmnist_iid", *options]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        'fl-ppae: device = "cuda": no CUDA device is visible here; use "auto" or "cpu"'
    )
    assert not where.exists()


@pytest.mark.parametrize(
    ("amx", "avx512", "processor", "faster"),
    [
        (True, True, "Intel(R) Xeon(R) Platinum 8481C", True),
        (False, True, "Intel(R) Xeon(R) Platinum 8481C", False),
        (False, True, "AMD EPYC 9B14", True),
        (False, False, "AMD EPYC 7B13", False),
    ],
)
def test_auto_is_bfloat16_only_where_it_is_the_faster(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, processor: str, faster: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(hardware, "processor_name", lambda: processor)
    assert uses_bfloat16("auto") == faster
    assert uses_bfloat16("bfloat16") and not uses_bfloat16("float32")


@pytest.mark.usefixtures("no_cuda")
def test_a_hospital_without_the_device_declines() -> None:
    limits = limits_of(read_node({"partition-id": 0, "num-partitions": 1}), 100)
    assert "no CUDA device" in refusal(limits, RunConfig.from_flat({"device": "cuda"}))
    assert refusal(limits, RunConfig.from_flat({})) == ""


def test_ray_reserves_a_share_of_a_gpu_only_if_one_is_used() -> None:
    expected = f"num-supernodes=7 client-resources-num-cpus=1 init-args-num-cpus={usable_cores()}"
    assert _federation(Submission(Path(), {}, 7, 1)) == expected
    assert _federation(Submission(Path(), {}, 7, 1, 0.25)).endswith(" client-resources-num-gpus=0.250000")


def test_no_hospital_asks_for_more_cores_than_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superlink, "usable_cores", lambda: 2)  # of a machine that has more
    for threads, asked in ((1, 1), (2, 2), (64, 2)):
        told = _federation(Submission(Path(), {}, 7, threads))
        assert told == f"num-supernodes=7 client-resources-num-cpus={asked} init-args-num-cpus=2"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "\n"}, 8),
        ({}, 8),
    ],
)
def test_a_container_s_quota_of_cpu_time_counts(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize("shifted", [False, True])
def test_resident_records_are_the_same_records(shifted: bool) -> None:
    shift = hospital_shift(1, 3, seed=0) if shifted else NO_SHIFT
    split = records().split
    own = HospitalRecords(split, np.arange(5, 55)[::-1].copy(), shift)
    pixels = torch.from_numpy(split.images[own.indices]).permute(0, 3, 1, 2)
    held = ResidentRecords(pixels, own.labels(), shift)
    assert len(held) == len(own)
    for positions in (slice(None), slice(3, 9), np.array([7, 0, 7, 49]), np.array([], int)):
        torch.testing.assert_close(held.images(positions), own.images(positions), rtol=0, atol=0)
        assert held.labels(positions).tolist() == own.labels(positions).tolist()


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_tf32_is_off_for_clipped_gradients_whatever_the_precision(precision: str) -> None:
    try:
        torch.set_float32_matmul_precision(precision)
        exact_float32(CPU)
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"  # the CPU is not affected
        exact_float32(CUDA)
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_on_the_cpu_records_are_not_copied() -> None:
    own = records()
    assert resident(own, CPU) is own


def test_more_pixels_than_a_device_should_hold_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    own, elsewhere = records(), torch.device("meta")
    assert resident(own, elsewhere) is not own
    monkeypatch.setattr(data_records, "_MOST_RESIDENT", len(own) * own.split.images[0].nbytes - 1)
    assert resident(own, elsewhere) is own


@pytest.mark.parametrize(("name", "bfloat16"), itertools.product(NAMES, (False, True)))
def test_per_sample_gradients_norms_and_sums_stay_on_the_device(name: str, bfloat16: bool) -> None:
    model = model_of(name)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to(CUDA)
        layers = [layer for layer in model.modules() if list(layer.parameters(recurse=False))]
        seen: dict[torch.nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}
        for layer in layers:  # a backward pass needs a real device; gradients look like outputs
            layer.register_forward_hook(lambda one, given, out: seen.update({one: (given[0], out)}))
        with torch.no_grad():
            outputs = model(torch.empty(6, *IMAGE, device=CUDA))
        assert outputs.device == CUDA
        kind, scratch = torch.bfloat16 if bfloat16 else torch.float32, per_sample.Scratch()
        taken = [
            found
            for layer in layers
            for _, found in per_sample._gradients(layer, *seen[layer], kind, scratch)
        ]
        norms = per_sample_norms(taken)
        sums = [part.weighted_sum(norms) for part in taken]
        assert (norms.device, norms.dtype) == (CUDA, torch.float64)
        assert {(total.device, total.dtype) for total in sums} == {(CUDA, torch.float64)}
        assert [total.shape for total in sums] == [parameter.shape for parameter in model.parameters()]


def terms_on(device: torch.device, **changes: object) -> TrainingTerms:
    values = {"noise_multiplier": 0.5, "max_grad_norm": 0.01, "sample_rate": 0.5, "steps": 4}
    values |= {"learning_rate": 1e-3, "objective": OBJECTIVES["reconstruction"], "device": device}
    return TrainingTerms(scope=SCOPES["autoencoder"], **{**values, **changes})  # type: ignore[arg-type]


@needs_cuda
@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_round_on_cuda_equals_one_on_the_cpu(bfloat16: bool) -> None:
    trained = []
    for device in (CPU, CUDA):
        model = model_of()
        moments, _ = train_round(model, records(), terms_on(device, bfloat16=bfloat16), streams(3, 0, 1))
        assert {value.device for value in (*model.parameters(), *moments.values())} == {CPU}
        trained.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*trained, rtol=0.05 if bfloat16 else 1e-3, atol=2e-3 if bfloat16 else 1e-4)


@needs_cuda
@pytest.mark.parametrize(("name", "bfloat16"), itertools.product(NAMES, (False, True)))
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_no_record_moves_the_sum_on_cuda_by_more_than_the_clipping_norm(
    name: str, bfloat16: bool, precision: str
) -> None:
    torch.set_float32_matmul_precision(precision)
    try:
        exact_float32(CUDA)
        model = model_of(name).to(CUDA)
        gradients = PerSampleGradients(model, bfloat16=bfloat16)
        for seed in range(5):
            images = torch.randn(1, *IMAGE, generator=torch.Generator().manual_seed(seed)).to(CUDA)
            with half_precision(bfloat16, CUDA):
                outputs = model(images)
            outputs.float().square().sum().backward()
            total = clipped_sum(gradients.take(), 1e-3).total
            norm = torch.cat([part.flatten() for part in total]).double().norm()
            assert float(norm) <= 1e-3
    finally:
        torch.set_float32_matmul_precision("highest")


@needs_cuda
def test_the_server_measures_the_same_on_cuda_and_on_the_cpu() -> None:
    own, model = records(), model_of()
    images, labels = own.split.images, np.arange(60) % 4
    plain = encode(model.encoder, images)
    model.to(CUDA)
    np.testing.assert_allclose(encode(model.encoder, images), plain, rtol=1e-2, atol=1e-2)
    assert probe_reconstruction_loss(plain, images, model.partner, 0, 1, steps=5) > 0
    training = NetworkTraining(steps=3, batch=16)
    fitted, _ = fit_and_score("resnet18", plain, labels, plain, labels, 4, 0, 1, None, training, CUDA)
    assert fitted.mean.device == CPU
