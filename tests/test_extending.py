"""A network and a cascade from outside the package, as `docs/extending.md` shows them, train through the command."""

import os
import re
import subprocess
import sys
from pathlib import Path

from regcascade.cascades.checkpoint import read

ROOT = Path(__file__).parents[1]
FILE_IN_DOCS = re.compile(r"`mine/([\w/.]+)`\n\n```(?:python|yaml)\n(.*?)```", re.DOTALL)


def test_the_files_of_the_docs_train_a_step(tmp_path):
    files = FILE_IN_DOCS.findall((ROOT / "docs/extending.md").read_text())
    assert {name for name, _ in files} == {"toy_net.py", "model/toy.yaml", "toy_cascade.py", "cascade/toy.yaml"}
    for name, text in files:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    arguments = [
        "--config-dir", "mine", "imports=[mine/toy_net.py,mine/toy_cascade.py]", "model=toy", "model.width=3",
        "cascade=toy", "n=2", "data.size=[16,17,18]", "data.train=2", "data.validation=2", "data.validation_pairs=1",
        "trainer.max_steps=1", "trainer.val_check_interval=1", "trainer.accelerator=cpu",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (checkpoint,) = tmp_path.glob("runs/*/*/checkpoints/best.ckpt")
    description = read(checkpoint).description
    assert description["model"] == {"name": "toy", "width": 3}
    assert description["cascade"]["name"] == "toy"
    assert read(checkpoint).step == 1
