"""Other methods under our protocol: each rule against a plain one, and what all of them promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small_networks import normed_backbone

from inreach_fast.errors import DataError, MixedSizesError, NonFiniteError, NotFittedError, ParameterError
from inreach_fast.evaluation import metrics, peers
from inreach_fast.evaluation.feature_cache import FeatureCache
from inreach_fast.evaluation.peers import PeerSettings, make_peer, padim, patchcore, softpatch, spade
from inreach_fast.evaluation.peers.peer import upsampled
from inreach_fast.evaluation.peers.stages import StageDescriptors, StageFeatures, Stages

SIDE = 32
WITH_DESCRIPTORS = ("patchcore", "padim", "spade", "softpatch")
each = pytest.mark.parametrize("name", WITH_DESCRIPTORS)


def images(count: int, seed: int = 0, *, defective: bool = False) -> list[Any]:
    """Noisy copies of one image; a defect is a bright square of 12 pixels."""
    base = np.random.default_rng(7).integers(0, 120, (SIDE, SIDE, 3))
    random = np.random.default_rng(seed)
    found = [np.clip(base + random.integers(-12, 13, base.shape), 0, 255).astype(np.uint8) for _ in range(count)]
    for image in found if defective else ():
        image[8:20, 8:20] = 250
    return found


@pytest.fixture(scope="module")
def backbone() -> Any:
    return normed_backbone()


@pytest.fixture
def settings(backbone: Any) -> PeerSettings:
    return PeerSettings(image_size=(SIDE, SIDE), backbone=lambda: backbone)


def with_settings(settings: PeerSettings, **changes: Any) -> PeerSettings:
    return PeerSettings(**vars(settings) | changes)


def squares(a: Any, b: Any) -> Any:
    """Squared distances, float64 (m, n), of rows (m, D) to rows (n, D)."""
    return ((np.float64(a)[:, None] - np.float64(b)[None]) ** 2).sum(axis=2)


@each
def test_clear_defects_are_found_and_located(name: str, settings: PeerSettings) -> None:
    peer = make_peer(name, settings)
    stages = []
    peer.fit(images(12), lambda stage, done, total: stages.append((stage, done, total)))
    tested = [*images(6, 1), *images(6, 2, defective=True)]
    found = [peer.predict(image) for image in tested]
    assert all(isinstance(score, float) for score, _ in found)
    assert all(values.shape == (SIDE, SIDE) and values.dtype == np.float32 for _, values in found)
    assert metrics.auroc([0] * 6 + [1] * 6, [score for score, _ in found]) == 1.0
    mask = np.zeros((12, SIDE, SIDE), dtype=bool)
    mask[6:, 8:20, 8:20] = True
    assert metrics.auroc(mask.ravel(), np.stack([values for _, values in found]).ravel()) > 0.8
    assert ("describe", 12, 12) in stages
    assert all(0 <= done <= total for _, done, total in stages)


@each
def test_equal_seeds_give_equal_scores(name: str, settings: PeerSettings) -> None:
    one, again = make_peer(name, settings), make_peer(name, settings)
    one.fit(images(5))
    again.fit(images(5))
    for image in images(2, 3):
        (score, values), (same, as_well) = one.predict(image), again.predict(image)
        assert score == same
        np.testing.assert_array_equal(values, as_well)


@each
@pytest.mark.parametrize(
    "training",
    [images(1), [np.full((SIDE, SIDE, 3), 90, np.uint8)] * 4, [np.full((SIDE, SIDE, 3), 90, np.uint8), *images(3)]],
    ids=["one image", "constant images", "a constant one"],
)
def test_scores_of_few_and_of_constant_images_are_finite(name: str, training: Any, settings: PeerSettings) -> None:
    peer = make_peer(name, settings)
    peer.fit(training)
    for image in [training[0], *images(1, 5), np.zeros((SIDE, SIDE, 3), np.uint8)]:
        score, values = peer.predict(image)
        assert np.isfinite(score)
        assert np.isfinite(values).all()
    good, bad = peer.predict(training[-1])[0], peer.predict(images(1, 2, defective=True)[0])[0]
    assert good < bad


@each
def test_a_cache_changes_nothing_and_is_shared(name: str, settings: PeerSettings, tmp_path: Any) -> None:
    plain = make_peer(name, settings)
    plain.fit(images(4))
    expected = plain.predict(images(1, 9)[0])
    cache = FeatureCache(tmp_path)
    for hits, misses in ((0, 5), (5, 5)):
        peer = make_peer(name, with_settings(settings, cache=cache))
        peer.fit(images(4))
        score, values = peer.predict(images(1, 9)[0])
        assert score == expected[0]
        np.testing.assert_array_equal(values, expected[1])
        assert (cache.hits, cache.misses) == (hits, misses)


def test_methods_of_the_same_features_share_a_cache(settings: PeerSettings, tmp_path: Any) -> None:
    cache = FeatureCache(tmp_path)
    for name, misses in (("padim", 3), ("spade", 3), ("patchcore", 6), ("softpatch", 6)):
        make_peer(name, with_settings(settings, cache=cache)).fit(images(3))
        assert cache.misses == misses


@each
def test_wrong_images_and_calls_are_typed(name: str, settings: PeerSettings) -> None:
    peer = make_peer(name, settings)
    with pytest.raises(NotFittedError, match="call fit first"):
        peer.predict(images(1)[0])
    with pytest.raises(DataError, match="there is none"):
        peer.fit([])
    with pytest.raises(DataError, match=r"images\[1\]: expected uint8"):
        peer.fit([images(1)[0], images(1)[0].astype(np.float32)])
    with pytest.raises(MixedSizesError, match=r"images\[2\]: has 31 x 32 pixels"):
        peer.fit([*images(2), images(1)[0][1:]])
    peer.fit(images(2))
    with pytest.raises(DataError, match="image: expected uint8"):
        peer.predict(images(1)[0][:, :, 0])
    with pytest.raises(DataError, match="got list"):
        peer.predict([0])  # type: ignore[arg-type]


@each
def test_features_that_are_not_finite_name_the_image(name: str, backbone: Any) -> None:
    class Broken:
        runtime, fingerprint = "torch", "broken"
        level_shapes = backbone.level_shapes

        def extract(self, batch: Any, **options: Any) -> Any:
            levels = backbone.extract(batch, **options)
            return levels if batch.max() < 255 else [level * float("nan") for level in levels]

    peer = make_peer(name, PeerSettings(image_size=(SIDE, SIDE), backbone=Broken))  # type: ignore[arg-type]
    training = images(3)
    training[1] = np.full((SIDE, SIDE, 3), 255, np.uint8)
    with pytest.raises(NonFiniteError, match=r"images\[1\]"):
        peer.fit(training)


def test_unknown_methods_are_refused_with_the_choices(settings: PeerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(peers.METHODS) == ["inreach", *peers.PEERS]
    with pytest.raises(
        ParameterError, match="'magic' is none; choose from inreach, patchcore, padim, spade, softpatch"
    ):
        peers.check_method("magic")
    with pytest.raises(ParameterError, match="'inreach' is no peer; choose from patchcore"):
        make_peer("inreach", settings)
    monkeypatch.setitem(peers.PEERS, "cutpaste", peers.Entry("not_there", "None", "CutPaste"))
    with pytest.raises(ParameterError, match="'cutpaste' is not in this version; choose from inreach, patchcore"):
        peers.check_method("cutpaste")


def test_stages_are_the_last_levels_of_each_grid() -> None:
    class Deep:
        fingerprint, runtime = "deep", "torch"

        def level_shapes(self, height: int, width: int) -> Any:
            return [(4, 8, 8), (4, 8, 8), (6, 4, 4), (6, 4, 4), (6, 4, 4), (8, 2, 2), (9, 2, 2), (9, 1, 1)]

        def extract(self, batch: Any, *, precision: str = "float32") -> Any:
            return list("abcdefgh")

    network: Any = Deep()
    assert Stages(network, (32, 32), (0, 1, 2)).extract(None) == ["b", "e", "g"]  # type: ignore[arg-type]
    assert Stages(network, (32, 32), (1, 2)).shapes == [(6, 4, 4), (9, 2, 2)]
    assert Stages(network, (32, 32), (7, 8)).extract(None) == ["h"]  # type: ignore[arg-type]
    assert Stages(network, (32, 32), (0,)).fingerprint != Stages(network, (32, 32), (1,)).fingerprint


def test_patchcores_levels_are_those_of_the_depth_of_that_name() -> None:
    from torchvision.models import resnet18

    from inreach_fast.backbones import Backbone, BackboneDefinition
    from inreach_fast.backbones.resnet import first_stages, resnet_block_names, resnet_hierarchies

    torch.manual_seed(0)
    model = resnet18(weights=None)
    known = BackboneDefinition(
        model, first_stages(model), hierarchies=resnet_hierarchies(model), known_levels=resnet_block_names(model)
    )
    image = images(1)[0][None]
    chosen = Stages(Backbone(known, known.choose_levels(13)), (SIDE, SIDE), (1, 2)).extract(image)
    expected = Backbone(known, known.choose_levels("PC")).extract(image)
    assert len(chosen) == len(expected) == 2
    assert all(torch.equal(a, b) for a, b in zip(chosen, expected, strict=True))


def test_maps_are_bilinear_and_smoothed() -> None:
    scores = np.random.default_rng(0).random((7, 5), dtype=np.float32)
    wide = torch.nn.functional.interpolate(torch.from_numpy(scores)[None, None], size=(28, 40), mode="bilinear")
    np.testing.assert_allclose(
        upsampled(scores, (28, 40), 2.0), gaussian_filter(wide[0, 0].numpy(), 2.0), rtol=1e-5, atol=1e-6
    )


# PatchCore


def plain_coreset(rows: Any, wanted: int) -> list[int]:
    chosen, least = [0], squares(rows, rows[:1])[:, 0]
    while len(chosen) < wanted:
        chosen.append(int(np.argmax(least)))
        least = np.minimum(least, squares(rows, rows[chosen[-1:]])[:, 0])
    return sorted(chosen)


@pytest.mark.parametrize(("ahead", "chunk"), [(1, 7), (5, 1000), (64, 64), (1000, 1000)])
def test_coreset_is_greedy_k_centre(ahead: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchcore, "_AHEAD", ahead)
    monkeypatch.setattr(patchcore, "_CHUNK", chunk)
    random = np.random.default_rng(1)
    clustered = random.integers(0, 4, (300, 1)) * 20 + random.standard_normal((300, 6))
    for rows in (clustered.astype(np.float32), random.random((90, 40), dtype=np.float32)):
        for share in (0.02, 0.1, 0.5):
            got = patchcore.coreset(rows, share)
            assert got.tolist() == plain_coreset(rows, round(share * len(rows)))
    line = np.array([[0.0], [1.0], [10.0], [4.0], [10.5]], dtype=np.float32)
    assert patchcore.coreset(line, 0.6).tolist() == [0, 3, 4]


def test_coreset_takes_no_row_twice_and_at_least_one() -> None:
    copies = np.repeat(np.eye(3, dtype=np.float32), 20, axis=0)
    assert patchcore.coreset(copies, 0.05).tolist() == [0, 20, 40]
    assert len(set(patchcore.coreset(copies, 0.5).tolist())) == 30
    assert patchcore.coreset(copies, 1.0).tolist() == list(range(60))
    assert patchcore.coreset(copies[:3], 0.1).tolist() == [0]


def test_coreset_of_wide_rows_is_that_of_their_projection() -> None:
    rows = np.random.default_rng(2).random((120, 300), dtype=np.float32)
    narrow = {seed: rows @ patchcore._projection(300, seed) for seed in (0, 1)}
    assert narrow[0].shape == (120, patchcore.PROJECTED)
    for seed, projected in narrow.items():
        assert patchcore.coreset(rows, 0.2, seed=seed).tolist() == plain_coreset(projected, 24)
    # Distances are kept on average.
    ratio = squares(narrow[0][:60], narrow[0][60:]) / squares(rows[:60], rows[60:])
    assert ratio.mean() == pytest.approx(1.0, abs=0.1)


def test_patchcore_is_its_paper(settings: PeerSettings) -> None:
    peer: Any = make_peer("patchcore", settings)
    training, image = images(12), images(1, 4, defective=True)[0]
    peer.fit(training)
    score, values = peer.predict(image)
    describe = StageDescriptors(settings)
    rows = np.concatenate([describe(one) for one in training])
    bank = rows[patchcore.coreset(rows, 0.1)]
    to = np.sqrt(squares(describe(image), bank))
    np.testing.assert_allclose(values, upsampled(np.float32(to.min(axis=1)).reshape(4, 4), (SIDE, SIDE)), rtol=1e-4)
    at = int(np.argmax(to.min(axis=1)))
    nearest = int(np.argmin(to[at]))
    around = np.argsort(squares(bank[nearest : nearest + 1], bank)[0], kind="stable")[:9]
    weight = 1 - np.exp(to[at, nearest]) / np.exp(to[at, around]).sum()
    assert score == pytest.approx(weight * to[at, nearest], rel=1e-4)


# SoftPatch


def test_outlier_factor_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    rows = random.uniform(size=(40, 2, 3)).astype(np.float32)
    rows[7, 1] += 30
    factor = softpatch.outlier_factors(rows)
    assert np.median(factor) == pytest.approx(1, abs=0.1)
    assert factor[7, 1] > 5
    assert factor[7, 0] < 2
    sklearn = pytest.importorskip("sklearn.neighbors")
    for place in (0, 1):
        plain = sklearn.LocalOutlierFactor(n_neighbors=6).fit(rows[:, place])
        np.testing.assert_allclose(factor[:, place], -plain.negative_outlier_factor_, rtol=1e-4)


def test_softpatch_drops_the_outliers_and_weighs_the_rest() -> None:
    rows = np.random.default_rng(5).random((12, 16, 6), dtype=np.float32)
    rows[1, 3] += 100
    memory = softpatch.WeighedMemory.of(rows)
    assert memory.scores(rows[1])[3] > 50
    factor, flat = softpatch.outlier_factors(rows).ravel(), rows.reshape(-1, 6)
    kept = np.flatnonzero(factor <= np.quantile(factor, 0.85))
    kept = kept[plain_coreset(flat[kept], round(0.1 * len(kept)))]
    query = np.random.default_rng(6).random((9, 6), dtype=np.float32)
    to = np.sqrt(squares(query, flat[kept]))
    nearest = to.argmin(axis=1)
    np.testing.assert_allclose(memory.scores(query), to[np.arange(9), nearest] * factor[kept][nearest], rtol=1e-5)


def test_softpatch_stays_with_a_defect_in_the_training_images(settings: PeerSettings) -> None:
    """The defect of a training image is noise to SoftPatch, and memory to PatchCore."""
    bad = images(1, 2, defective=True)[0]
    ratios = {}
    for name in ("softpatch", "patchcore"):
        peer = make_peer(name, settings)
        peer.fit([*images(12), bad])
        ratios[name] = peer.predict(bad)[1].max() / peer.predict(images(1, 8)[0])[1].max()
    assert ratios["softpatch"] > 2 > ratios["patchcore"]


# PaDiM


@pytest.mark.parametrize("n", [1, 2, 9, 30], ids=lambda n: f"{n} images")
def test_padim_is_the_mahalanobis_distance(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer images than values, as many, and more."""
    monkeypatch.setattr(padim, "_BLOCK", 2)
    random = np.random.default_rng(n)
    rows = (random.standard_normal((5, n, 9)) @ random.standard_normal((9, 9)) + 3).astype(np.float32)
    patches = (3 + 2 * random.standard_normal((5, 9))).astype(np.float32)
    expected = []
    for place in range(5):
        x = rows[place].astype(np.float64)
        covariance = (np.cov(x, rowvar=False) if n > 1 else 0) + 0.01 * np.eye(9)
        difference = patches[place] - x.mean(axis=0)
        expected.append(np.sqrt(difference @ np.linalg.inv(covariance) @ difference))
    got = padim.GaussianGrid(rows.copy()).distances(patches)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_padim_draws_values_of_all_levels_at_a_place(settings: PeerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    image = images(1)[0]
    one, two = settings.backbone().extract(image[None])
    whole = torch.cat([one, torch.nn.functional.interpolate(two, scale_factor=2)], dim=1)  # nearest
    plain = whole[0].permute(1, 2, 0).reshape(64, 14).numpy()
    everything: Any = make_peer("padim", settings)
    np.testing.assert_array_equal(everything._patches(image, "image"), plain)
    monkeypatch.setattr(padim, "DIMENSIONS_SMALL", 5)
    drawn = []
    for seed in range(4):
        peer: Any = make_peer("padim", with_settings(settings, seed=seed))
        got = peer._patches(image, "image")
        assert got.shape == (64, 5)
        drawn.append([int(np.flatnonzero((plain == got[:, i : i + 1]).all(axis=0))[0]) for i in range(5)])
        assert drawn[-1] == sorted(set(drawn[-1]))
        assert peer.parameters()["dimensions"] == 5
    assert len({tuple(one) for one in drawn}) > 1


# SPADE


def test_spade_is_its_paper(settings: PeerSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spade, "NEIGHBOURS", 3)
    peer = make_peer("spade", settings)
    training, image = [*images(5), *images(2, 3, defective=True)], images(1, 4, defective=True)[0]
    peer.fit(training)
    score, values = peer.predict(image)
    features = StageFeatures(settings)
    own, others = features(image), [features(one) for one in training]
    pooled = [levels[-1].mean(axis=0) for levels in [own, *others]]
    to = squares(pooled[:1], pooled[1:])[0]
    near = np.argsort(to, kind="stable")[:3]
    assert score == pytest.approx(to[near].mean(), rel=1e-4)
    maps = []
    for level, side in ((0, 8), (1, 4)):
        distance = squares(own[level], np.concatenate([others[i][level] for i in near])).min(axis=1)
        maps.append(upsampled(np.float32(distance).reshape(side, side), (SIDE, SIDE)))
    np.testing.assert_allclose(values, np.mean(maps, axis=0), rtol=1e-4)
