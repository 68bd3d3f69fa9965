import checkpoints
import numpy as np
import pytest

import jaxflow as jf
from jaxflow.cli._main import main
from jaxflow.explain._positions import count_positions

NAMES = ["[CLS]", "a", "b", "a", "[MASK]"]


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        (None, None),
        (2, 2),
        (-1, 4),
        ([0, -2], [0, 3]),
        ("[MASK]", 4),
        ("a", [1, 3]),
        (["[MASK]", 0], [4, 0]),
        (np.array([1, -5]), [1, 0]),
        (-6, -6),  # which check_positions refuses
        (2.5, 2.5),
        ([[1]], [[1]]),
    ],
)
def test_positions_are_counted(positions, expected):
    assert count_positions(positions, NAMES, range(5)) == expected


def test_a_name_that_no_token_has():
    with pytest.raises(
        ValueError, match=r"No output is at a token named 'c'; there are '\[CLS\]', 'a', 'b', '\[MASK\]'\."
    ):
        count_positions("c", NAMES, range(5))


def test_outputs_from_the_end_and_by_name():
    model, tokenizer = jf.load_model("agreement")
    text = "the keys to the cabinet"

    def explained(positions):
        return jf.explain(model, text, "flow", tokenizer=tokenizer, positions=positions).attribution

    for same in (-4, "keys", [2], ["keys"]):
        np.testing.assert_array_equal(explained(same).scores, explained(2).scores)
    assert explained("the").positions.tolist() == [1, 4]
    for wrong in (6, -7):
        with pytest.raises(ValueError, match=rf"Output {wrong} does not exist: outputs are positions 0 to 5"):
            explained(wrong)


@pytest.mark.usefixtures("standard_promotion")
def test_outputs_of_a_model_that_writes_count_from_the_last_that_wrote():
    model, tokenizer = jf.load_model("agreement-lm")
    options = {"tokenizer": tokenizer, "generate": jf.Generate(max_new_tokens=2)}
    every = jf.explain(model, "the keys to the cabinet", "flow", **options)
    last = jf.explain(model, "the keys to the cabinet", "flow", positions=-1, **options)
    assert every.attribution.positions.tolist()[-1] == last.attribution.positions.tolist()[0]
    named = jf.explain(model, "the keys to the cabinet", "flow", positions="cabinet", **options)
    assert named.attribution.positions.tolist() == every.attribution.positions.tolist()[:1]
    with pytest.raises(ValueError, match="No output is at a token named 'keys'"):
        jf.explain(model, "the keys to the cabinet", "flow", positions="keys", **options)


@pytest.mark.usefixtures("standard_promotion")
def test_in_the_shell(capsys, tmp_path):
    assert main(["explain", "--method", "flow", "--output", "keys", "the keys to the cabinet"]) == 0
    named = capsys.readouterr().out
    assert "output 2 (keys)" in named
    assert main(["explain", "--method", "flow", "--output", "-4", "the keys to the cabinet"]) == 0
    assert capsys.readouterr().out == named
    assert main(["explain", "--output", "doors", "the keys to the cabinet"]) == 1
    assert "No output is at a token named 'doors'" in capsys.readouterr().err


@pytest.mark.usefixtures("standard_promotion")
def test_a_masked_language_model_is_explained_where_the_mask_is(capsys, tmp_path):
    checkpoints.save_bert(tmp_path, "FlaxBertForMaskedLM")
    _, tokenizer = jf.load_model(tmp_path)
    text = f"the {tokenizer.mask_token} keys"
    assert main(["explain", "--model", str(tmp_path), "--method", "flow", text]) == 0
    assert "output 2 ([MASK])" in capsys.readouterr().out
