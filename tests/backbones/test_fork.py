"""Networks in forked processes: torch's threads do not survive a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import inreach_fast

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

_PARENT = """
import os, sys
import torch
from small_fits import estimator, pictures, tiny_backbone
from inreach_fast import InReaCh
from inreach_fast.errors import ForkError

images, path = pictures(9), sys.argv[1]

def in_child(act):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            act()
            code = 0
        except ForkError as error:
            print(error)
            code = 7 if "spawn" in str(error) and "torch.set_num_threads(1)" in str(error) else 8
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def predicts():
    assert abs(model.predict(images[8]).score / score - 1) < 1e-3  # the last bits depend on the number of threads

def predicts_with_one_thread():
    torch.set_num_threads(1)
    predicts()

torch.set_num_threads(2)
assert in_child(lambda: estimator().fit(images[:8])) == 0  # this process has imported torch, and not used it
torch.set_num_threads(1)
model = estimator().fit(images[:8])
model.save(path)
score = model.predict(images[8]).score
assert in_child(predicts) == 0
torch.set_num_threads(2)
predicts()
assert in_child(predicts) == 7
assert in_child(lambda: list(model.predict_stream(images))) == 7
assert in_child(lambda: model.partial_fit(images[8:])) == 7
assert in_child(lambda: model.backbone.extract(images[8][None])) == 7
assert in_child(lambda: tiny_backbone()) == 7
assert in_child(lambda: InReaCh("channels", backbone="efficientnet_lite2", weights="random").backbone) == 7
assert in_child(lambda: InReaCh.load(path)) == 0
assert in_child(lambda: model.score_descriptors(model.nominal_.patches[:64])) == 0
assert in_child(predicts_with_one_thread) == 0
assert in_child(lambda: os._exit(in_child(predicts))) == 7  # a child's child
predicts()
torch.set_num_threads(1)
assert in_child(predicts) == 0
print("as it should be")
"""


def test_a_forked_process_answers_or_says_why_it_cannot(tmp_path: Path) -> None:
    # In an interpreter of its own: this one has used torch.
    folders = Path(inreach_fast.__file__).parents[1], Path(__file__).parents[1], os.environ.get("PYTHONPATH")
    done = subprocess.run(
        [sys.executable, "-c", _PARENT, str(tmp_path / "model")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(folder) for folder in folders if folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.endswith("as it should be\n"), done.stdout + done.stderr
