"""The digest names a run: the same on every machine, another for every other spec."""

from __future__ import annotations

from modelyard.training import canonical_json, check_spec, spec_digest
from modelyard.v1 import training_spec_pb2 as pb
from support.training_specs import regression, table


def test_the_canonical_form_does_not_drift() -> None:
    """Digests are stored with versions: a change here renames every run there ever was."""
    checked = check_spec(regression(seed=7), table())
    assert canonical_json(checked.spec) == (
        '{"batch_size":32,"dataset":"datasets/table","feature_columns":["a","b","c"],"input_scaling":"SCALING_NONE",'
        '"loss":"LOSS_MEAN_SQUARED_ERROR","max_epochs":10,"model":"models/table","network":{"input_shape":["3"],'
        '"layer_list":{"layers":[{"linear":{"inputs":3,"outputs":4}},{"activation":"ACTIVATION_RELU"},'
        '{"linear":{"inputs":4,"outputs":1}}]}},"optimizer":{"adam":{"beta1":0.9,"beta2":0.999,"epsilon":1e-08},'
        '"learning_rate":0.01},"publication":{"alias":"live"},"seed":"7","split":{"test_fraction":0.15,'
        '"validation_fraction":0.15},"target_column":"y","task":"TASK_REGRESSION"}'
    )
    assert checked.digest == "30fd92a357d45c6d8a783625f5769698cab8b44220f54493d36b6219c248da1c"


def test_what_is_left_to_default_and_what_is_written_out_are_one_run() -> None:
    written = regression(batch_size=32, loss=pb.LOSS_MEAN_SQUARED_ERROR, publication=pb.Publication(alias="live"))
    assert check_spec(written, table()).digest == check_spec(regression(), table()).digest


def test_another_seed_is_another_run() -> None:
    assert spec_digest(regression(seed=1)) != spec_digest(regression(seed=2))
