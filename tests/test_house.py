"""The direction of imports, and the one place that samples a grid."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_imports_point_one_way():
    lint = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kept, 0 broken" in done.stdout


def test_only_warp_samples_a_grid():
    sources = {
        path.relative_to(ROOT / "regcascade").as_posix(): path.read_text(encoding="utf-8")
        for path in (ROOT / "regcascade").rglob("*.py")
    }
    callers = [name for name, text in sources.items() if "grid_sample(" in text]
    assert callers == ["geometry/warp.py"]
