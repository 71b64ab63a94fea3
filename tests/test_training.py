"""La boucle d'apprentissage commune, et les mesures enregistrées."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch

from atelier.models import load_model
from atelier.training import corpus_tokens, lm_loss, train, windows


def test_windows_are_pieces_of_the_text_and_are_replayed_from_their_seed():
    ids = torch.arange(1000) * 3
    first, again, other = (next(windows(ids, 4, 16, seed)) for seed in (1, 1, 2))
    assert first.shape == (4, 16) and torch.equal(first, again) and not torch.equal(first, other)
    assert (first.diff(dim=1) == 3).all()
    with pytest.raises(ValueError, match="128"):
        windows(ids[:100])


def test_the_loss_is_that_of_transformers():
    model, ids = load_model("colibri"), next(windows(corpus_tokens("b_train", 2000), 2, 32))
    with torch.no_grad():
        assert lm_loss(model, ids).item() == pytest.approx(model(ids, labels=ids).loss.item(), rel=1e-5)


def test_training_improves_what_may_learn_and_touches_nothing_else():
    ids, logs = corpus_tokens("b_train", 4000), []
    for _ in range(2):
        model = load_model("colibri")
        for name, p in model.named_parameters():
            p.requires_grad = ".mlp." in name
        before, calls = copy.deepcopy(model.state_dict()), []
        batch = next(windows(ids, 2, 32))
        log = train(model, itertools.repeat(batch), 6, lr=3e-3, warmup=2, after_step=calls.append)
        changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
        assert changed and all(".mlp." in name for name in changed)
        assert calls == list(range(6)) and log.losses[-1] < 0.9 * log.losses[0]
        assert not model.training and log.seconds > log.step_seconds > 0
        logs.append(log.losses)
    assert logs[0] == logs[1]
    with pytest.raises(ValueError, match="s'arrêtent au pas 1"):
        train(model, [batch], 3)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="rien à entraîner"):
        train(model, [batch], 1)


def test_smoothed_losses():
    from atelier.training import Log

    assert Log([4.0, 2.0, 6.0]).smoothed(2) == [4.0, 3.0, 4.0]
