"""Bad input: random programs with hostile arguments. Only the errors of the contract, and never a crash."""

import random

import _fault
import pytest
from _support import scaled

SEEDS = [1, 2, 3, random.randrange(2**32), random.randrange(2**32)]


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: "fixed" if seed < 10 else "random")
def test_random_program(seed):
    print("seed", seed)
    result = _fault.run_script(
        "import sys, _fuzz; _fuzz.main(int(sys.argv[1]), int(sys.argv[2]))",
        seed,
        scaled(3000, least=300),
        options=["-X", "faulthandler"],
        timeout=180,
    )
    assert result.returncode == 0, (seed, result.returncode, result.stderr[-6000:])
    assert "made " in result.stdout
