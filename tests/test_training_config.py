"""A run is a plain value, and one that makes no sense is refused."""

import dataclasses
import json

import pytest

from lib.training.config import ConfigError, Run, from_dict
from tests.small import TINY


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": "fast"}, {"dim": 15}, {"vocab": 0}, {"steps": True}, {"rounding": "up"},
        {"master": "fp32", "rounding": "stochastic"}, {"master": "fp32", "param_dtype": "float32"},
        {"nonsense": 1}, {"param_dtype": "float16"}, {"steps": -1}, {"schedule": "step"},
        {"rounding": "stochastic", "param_dtype": "float32"}, {"update": "fused", "master": "fp32"},
    ],
)  # fmt: skip
def test_a_run_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigError):
        TINY.replace(**wrong)


def test_a_run_is_plain():
    assert from_dict(json.loads(json.dumps(dataclasses.asdict(TINY)))) == TINY
    assert Run(lr=1).lr == 1.0 and type(Run(lr=1).lr) is float
    with pytest.raises(ConfigError, match="unknown: optimiser; a run has vocab, dim"):
        from_dict({"optimiser": "sgd"})


def test_what_is_mixed_is_known():
    assert not Run().mixed and not TINY.replace(compute_dtype="bfloat16").mixed
    for change in ({"master": "low16"}, {"state_dtype": "float32"}, {"rounding": "stochastic"}):
        assert TINY.replace(**change).mixed
    assert Run(batch=8, seq=16).tokens_per_step == 128
