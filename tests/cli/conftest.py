"""Small folders of images, and one model fitted to them through the command line itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_cases import DEFAULT, FAST, Result, Run, picture, save

from inreach_fast.cli.main import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `inreach` in this process."""

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images, number 5 with a defect."""
    folder = tmp_path_factory.mktemp("training")
    for number in range(8):
        save(folder / f"{number}.png", picture(number, defect=number == 5))
    return folder


@pytest.fixture(scope="session")
def model(training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file."""
    path = tmp_path_factory.mktemp("model") / "m.inreach"
    assert main(["fit", str(training), "-o", str(path), "--quiet", *FAST]) == 0
    return path


@pytest.fixture(scope="session")
def default_model(training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of the default preset."""
    path = tmp_path_factory.mktemp("default_model") / "m.inreach"
    assert main(["fit", str(training), "-o", str(path), "--quiet", *DEFAULT]) == 0
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """One class "part" in MVTec's layout."""
    base = tmp_path / "data" / "part"
    for number in range(5):
        save(base / "train" / "good" / f"{number:03}.png", picture(number))
    for number in range(2):
        save(base / "test" / "good" / f"{number:03}.png", picture(10 + number))
        save(base / "test" / "block" / f"{number:03}.png", picture(20 + number, defect=True))
        mask = np.zeros((48, 48), dtype=np.uint8)
        mask[16:24, 16:24] = 255
        save(base / "ground_truth" / "block" / f"{number:03}_mask.png", mask)
    return tmp_path / "data"


@pytest.fixture
def truncated(tmp_path: Path) -> Path:
    """A PNG of which the second half is missing."""
    path = save(tmp_path / "broken" / "cut.png", picture(0, (96, 96)))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path
