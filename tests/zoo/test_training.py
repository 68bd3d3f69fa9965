import jax.numpy as jnp
import numpy as np
import pytest

from zoo import training
from zoo.training import Settings


def test_batches_hold_every_example_once_and_whole():
    lengths = np.random.default_rng(0).integers(2, 26, 320)
    batches = training.rows_of_like_length(lengths, batch_size=20, seed=0)
    drawn = [next(batches) for _ in range(16)]
    assert sorted(np.concatenate(drawn).tolist()) == list(range(320))
    widths = [training.width_of(lengths[rows], longest=25) for rows in drawn]
    assert all(lengths[rows].max() <= width <= 25 for rows, width in zip(drawn, widths, strict=True))
    assert np.mean(widths) < 20  # Little padding.
    assert len(set(widths)) <= 5
    other = next(training.rows_of_like_length(lengths, batch_size=20, seed=1))
    assert not np.array_equal(other, drawn[0])


def test_cross_entropy_is_of_what_counts():
    logits = np.log([[[0.5, 0.25, 0.25], [0.8, 0.1, 0.1]]]).astype(np.float32)
    labels = np.array([[1, 0]])
    assert training.cross_entropy(logits, labels) == pytest.approx((np.log(4) - np.log(0.8)) / 2, rel=1e-6)
    assert training.cross_entropy(logits, labels, np.array([[1.0, 0.0]], np.float32)) == pytest.approx(
        np.log(4), rel=1e-6
    )


def test_fit_minimises_and_watches(capsys, standard_promotion):
    def loss_of(params, rows):
        return ((params["x"] - rows) ** 2).mean()

    settings = Settings(steps=300, learning_rate=0.1, weight_decay=0.0)
    watched = []
    params, losses = training.fit(
        loss_of,
        {"x": jnp.zeros(2)},
        batches=iter([(np.array([3.0, -1.0]),)] * 300),
        settings=settings,
        watch=lambda params: watched.append(params) or {"first": params["x"][0]},
    )
    np.testing.assert_allclose(params["x"], [3, -1], atol=0.01)
    assert losses.shape == (300,)
    assert losses[0] == pytest.approx(5.0)
    assert losses[-1] < 1e-3
    assert len(watched) == 2
    assert "first=3.0" in capsys.readouterr().err
