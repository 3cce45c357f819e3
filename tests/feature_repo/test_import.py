"""What Feast's import leaves out here."""

import subprocess
import sys


def test_feast_is_imported_without_torch_and_without_types_checked_at_run_time() -> None:
    told = (
        "import sys, feature_repo, feast; print({'torch', 'typeguard'} & sys.modules.keys()); "
        "import torch, typeguard; print(typeguard.check_type(1, int), feast.Field.__init__)"
    )
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    left, works = ran.stdout.splitlines()
    assert left == "set()"
    assert works.startswith("1 <function Field.__init__")


def test_a_module_that_was_there_before_stays() -> None:
    told = (
        "import sys, torch, typeguard; import feature_repo; "
        "assert sys.modules['torch'] is torch and sys.modules['typeguard'] is typeguard"
    )
    subprocess.run([sys.executable, "-c", told], check=True)
