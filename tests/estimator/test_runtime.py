"""The runtime of a model's network: recorded, kept, said where it is another one, and measured."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import fake_runtime
import numpy as np
import pytest
from fake_runtime import FakeNetwork
from small_networks import normed_backbone, small_images, small_model, unfitted

from inreach_fast import InReaCh, disagreement
from inreach_fast.backbones import empty_network_cache
from inreach_fast.errors import FeedbackError, GrowthError, NotPicklableError, ParameterError, RuntimeUnavailableError
from inreach_fast.storage import model_file

IMAGES = [np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8) for i in range(4)]


@pytest.fixture(scope="module")
def model() -> InReaCh:
    return small_model(normed_backbone())


@pytest.fixture(scope="module")
def file(model: InReaCh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.inreach"
    model.save(path)
    return path


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FakeNetwork]:
    monkeypatch.delenv("INREACH_BACKBONE_RUNTIME")
    return fake_runtime.use(monkeypatch, tmp_path / "cache")


def load(path: Path, **options: Any) -> InReaCh:
    return InReaCh.load(path, backbone=normed_backbone(), **options)


def recorded(path: Path) -> dict[str, Any]:
    backbone = model_file.load_file(path, verify=False)[0]["backbone"]
    return {name: backbone[name] for name in ("runtime", "runtime_version") if name in backbone}


def test_a_fit_records_its_runtime(model: InReaCh, file: Path) -> None:
    import torch

    assert model.fitted_runtime == model.backbone_runtime == model.backbone.runtime == "torch"
    assert recorded(file) == {"runtime": "torch", "runtime_version": str(torch.__version__)}
    again = load(file)
    assert (again.fitted_runtime, again.backbone.runtime) == ("torch", "torch")
    mine, theirs = model.predict(IMAGES), again.predict(IMAGES)
    np.testing.assert_array_equal(mine.patch_scores, theirs.patch_scores)
    assert mine.runtime is None
    assert theirs.runtime is None


def test_a_model_without_a_record_keeps_the_unfolded_network(tmp_path: Path) -> None:
    older = small_model(normed_backbone(), backbone_runtime="torch-unfolded")
    older.backbone_runtime = "auto"
    older.save(tmp_path / "older")
    assert recorded(tmp_path / "older") == {}
    again = load(tmp_path / "older")
    assert again.backbone.runtime == again.fitted_runtime == "torch-unfolded"
    assert again.predict(IMAGES[0]).runtime is None
    grown = load(tmp_path / "older").partial_fit(IMAGES[:1])
    assert grown.fitted_runtime == "torch-unfolded"
    # Another fit of a loaded model keeps it as well, unless it is told otherwise.
    assert load(tmp_path / "older").fit(small_images()).fitted_runtime == "torch-unfolded"
    assert load(tmp_path / "older", backbone_runtime="torch").fit(small_images()).fitted_runtime == "torch"
    again.save(tmp_path / "saved again")
    assert (tmp_path / "saved again").read_bytes() == (tmp_path / "older").read_bytes()


def test_another_runtime_is_named_by_every_prediction(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    own, other = load(file), load(file, backbone_runtime="torch-unfolded")
    one = other.predict(IMAGES[0])
    assert "computed by torch-unfolded, and the model was fitted with torch: scores differ" in caplog.text
    assert one.runtime == "torch-unfolded"
    assert one.score != own.predict(IMAGES[0]).score
    assert one.score == pytest.approx(own.predict(IMAGES[0]).score, rel=1e-3)
    batch = other.predict(IMAGES)
    assert batch.runtime == batch[1].runtime == "torch-unfolded"
    assert [p.runtime for p in other.predict_stream(iter(IMAGES))] == ["torch-unfolded"] * 4
    assert other.predict(IMAGES[0], budget_ms=1000).runtime == "torch-unfolded"
    other.backbone_runtime = "auto"
    assert other.predict(IMAGES[0]).runtime is None
    assert other.predict(IMAGES[0]).score == own.predict(IMAGES[0]).score
    with pytest.raises(ParameterError, match="backbone_runtime: expected one of 'auto', 'torch'"):
        other.backbone_runtime = "tensorrt"


def test_channels_do_not_grow_by_another_runtime(file: Path) -> None:
    other = load(file, backbone_runtime="torch-unfolded")
    for grow in (lambda: other.partial_fit(IMAGES[:1]), lambda: other.forget(0)):
        with pytest.raises(GrowthError, match=r"fitted with the runtime 'torch', and this is 'torch-unfolded'; set"):
            grow()
    other.backbone_runtime = "auto"
    assert other.partial_fit(IMAGES[:1]).n_images_ == 9


def test_auto_fits_with_the_fastest_and_keeps_to_it(fake: type[FakeNetwork], tmp_path: Path) -> None:
    model = small_model(normed_backbone())
    assert model.fitted_runtime == "openvino"
    assert fake.exports == 1
    assert model.predict(IMAGES[0]).runtime is None
    model.save(tmp_path / "m")
    assert recorded(tmp_path / "m")["runtime"] == "openvino"
    empty_network_cache()
    prepared = load(tmp_path / "m").prepare()
    assert fake.exports == 2
    prepared.predict(IMAGES[0])
    assert fake.exports == 2
    assert load(tmp_path / "m").predict(IMAGES[0]).score == model.predict(IMAGES[0]).score
    by_torch = load(tmp_path / "m", backbone_runtime="torch").predict(IMAGES[0])
    assert by_torch.runtime == "torch"
    assert by_torch.score != model.predict(IMAGES[0]).score


def test_a_model_whose_runtime_is_gone(
    fake: type[FakeNetwork], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_model(normed_backbone()).save(tmp_path / "m")

    def gone(self: FakeNetwork) -> dict[str, str]:
        raise RuntimeUnavailableError("backbone_runtime: openvino is not installed; pip install it")

    monkeypatch.setattr(fake, "versions", gone)
    model = load(tmp_path / "m")
    for call in (model.prepare, lambda: model.predict(IMAGES[0])):
        with pytest.raises(RuntimeUnavailableError, match=r"not installed; pip .*the model was fitted with openvino"):
            call()
    assert load(tmp_path / "m", backbone_runtime="torch").predict(IMAGES[0]).runtime == "torch"


def test_a_spool_of_another_runtime_is_not_resumed(tmp_path: Path) -> None:
    from inreach_fast.errors import SpoolMismatchError

    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "associate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unfitted(normed_backbone()).fit(small_images(), spool=tmp_path / "spool", progress=interrupt)
    with pytest.raises(SpoolMismatchError, match="runtime"):
        unfitted(normed_backbone(), backbone_runtime="torch-unfolded").fit(
            small_images(), spool=tmp_path / "spool", resume=True
        )
    model = unfitted(normed_backbone(), backbone_runtime="torch").fit(
        small_images(), spool=tmp_path / "spool", resume=True
    )
    assert model.fitted_runtime == "torch"


def test_disagreement_of_runtimes(model: InReaCh, caplog: pytest.LogCaptureFixture) -> None:
    labels = [False, True, False, True]
    parameters = model.parameters
    told = disagreement(model, IMAGES, runtime="torch-unfolded", labels=labels)
    assert model.parameters == parameters
    own = model.predict(IMAGES)
    model.backbone_runtime = "torch-unfolded"
    try:
        other = model.predict(IMAGES)
    finally:
        model.backbone_runtime = "auto"
    assert (told.runtime, told.own_runtime, told.precision, told.images) == ("torch-unfolded", "torch", "float32", 4)
    assert 0 < told.largest_feature_change < 1e-5
    assert told.largest_score_change == pytest.approx(np.max(np.abs(other.score - own.score) / own.score), rel=1e-3)
    assert told.verdicts == np.count_nonzero(own.is_anomalous != other.is_anomalous)
    pairs = [own.score[i] > own.score[j] for i in (1, 3) for j in (0, 2)]
    assert told.own_auroc == np.mean(pairs)
    assert told.auroc is not None
    assert disagreement(model, IMAGES[:1], "bfloat16").auroc is None
    for bad in ([True] * 4, [True, False]):
        with pytest.raises(ParameterError, match="labels: expected one for each of the 4 images"):
            disagreement(model, IMAGES, runtime="torch-unfolded", labels=bad)
    with pytest.raises(ParameterError, match="runtime: 'torch' is the fit's own"):
        disagreement(model, IMAGES, runtime="torch")


class Plain:
    """No `Backbone`, but with all that a fit needs of one."""

    def __init__(self) -> None:
        self._backbone = normed_backbone()
        self.name, self.spec, self.device = "plain", {"rebuildable": False}, self._backbone.device
        self.fingerprint, self.level_shapes = "f" * 64, self._backbone.level_shapes

    def extract(self, batch: np.ndarray, *, precision: str = "float32") -> Any:
        return self._backbone.extract(batch, precision=precision)


def test_a_network_that_is_no_backbone_runs_as_it_is() -> None:
    plain: Any = Plain()
    model = small_model(plain)
    assert model.backbone is plain
    assert model.fitted_runtime == "torch-unfolded"
    assert model.predict(IMAGES[0]).runtime is None
    with pytest.raises(ParameterError, match="backbone_runtime: Plain has none to choose"):
        small_model(plain, backbone_runtime="torch")


def test_a_model_of_descriptors_has_no_runtime() -> None:
    model = InReaCh("channels", assoc_depth=2, min_channel_length=0).fit_descriptors(
        np.random.default_rng(0).random((4, 4, 8), dtype=np.float32), (2, 2)
    )
    assert model.fitted_runtime is None
    assert model.score_descriptors(np.zeros((4, 8), np.float32)).runtime is None


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_real_runtime_fits_and_predicts(
    runtime: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx" if runtime == "onnxruntime" else runtime)
    pytest.importorskip(runtime)
    monkeypatch.setenv("INREACH_NETWORK_CACHE", str(tmp_path / "cache"))
    model = small_model(normed_backbone(), backbone_runtime=runtime)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.fitted_runtime == runtime
    assert again.predict(IMAGES[0]).score == model.predict(IMAGES[0]).score
    assert model.predict(IMAGES[0]).runtime is None
    told = disagreement(load(file), IMAGES, runtime=runtime)
    assert (told.runtime, told.own_runtime, told.verdicts) == (runtime, "torch", 0)
    assert told.largest_feature_change < 1e-5


# ------------------------------------------------------------------------------------- copies, pickles, feedback


def test_a_copy_keeps_its_runtime(model: InReaCh, fake: type[FakeNetwork]) -> None:
    own = unfitted(normed_backbone(), backbone_runtime="openvino").fit(small_images())
    assert (own.fitted_runtime, fake.exports) == ("openvino", 1)
    for twin in (copy.copy(own), copy.deepcopy(own)):
        assert (twin.fitted_runtime, twin.backbone_runtime) == ("openvino", "openvino")
        assert twin.backbone is own.backbone  # not exported again
        twin.backbone_runtime = "torch"
        assert (twin.predict(IMAGES[0]).runtime, own.predict(IMAGES[0]).runtime) == ("torch", None)
        assert own.backbone_runtime == "openvino"
    assert fake.exports == 1
    assert copy.copy(model).backbone_runtime == "torch"


def test_a_pickle_keeps_its_runtime(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from small_networks import Normed\nfrom inreach_fast.backbones import IMAGENET, BackboneDefinition\n\n\n"
        'def build():\n    return BackboneDefinition(Normed(), ("first", "second"), IMAGENET, "normed")\n'
    )
    own = unfitted(f"{tmp_path / 'net.py'}:build", backbone_runtime="torch-unfolded")
    assert pickle.loads(pickle.dumps(own)).backbone_runtime == "torch-unfolded"
    own.fit(small_images())
    twin = pickle.loads(pickle.dumps(own))
    assert (twin.fitted_runtime, twin.backbone.runtime) == ("torch-unfolded", "torch-unfolded")
    assert twin.predict(IMAGES[0]).score == own.predict(IMAGES[0]).score


def test_a_model_that_is_not_fitted_is_pickled_without_an_export(fake: type[FakeNetwork]) -> None:
    with pytest.raises(NotPicklableError):  # its network is an object
        pickle.dumps(unfitted(normed_backbone(), backbone_runtime="openvino"))
    assert fake.exports == 0


def test_feedback_is_given_by_the_runtime_of_the_fit(file: Path) -> None:
    other = load(file, backbone_runtime="torch-unfolded")
    with pytest.raises(FeedbackError, match='set backbone_runtime="auto"'):
        other.accept(IMAGES[0])
    other.backbone_runtime = "auto"
    other.accept(IMAGES[0])
    other.backbone_runtime = "torch-unfolded"
    found = other.predict(IMAGES[0])
    assert found.runtime == "torch-unfolded"
    assert found.score < 1e-6 * load(file).predict(IMAGES[0]).score


@pytest.mark.parametrize("association", ["seeds", "all"])
def test_a_grown_model_has_its_runtime_its_feedback_and_the_sizes(association: str) -> None:
    settings = {"association": association, "backbone_runtime": "torch-unfolded"}
    model = unfitted(normed_backbone(), **settings).fit(small_images())
    model.accept(IMAGES[0], (0, 0, 9, 9))
    model.reject(IMAGES[1], (8, 8, 9, 9))
    for act in (lambda: model.partial_fit(IMAGES[2:]), lambda: model.forget(0, refit=True)):
        act()
        assert (model.fitted_runtime, [entry.number for entry in model.feedback_]) == ("torch-unfolded", [1, 2])
        assert model.predict(IMAGES[0]).due_to[0] == 1
        assert model.predict(IMAGES[1]).is_anomalous
        assert model.thumbnails_ is not None
        assert (model.thumbnails_.sizes > 0).all()
