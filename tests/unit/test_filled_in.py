import runpy
from pathlib import Path

import torch

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "filled_in.py"))


def test_what_is_there_stays_bit_for_bit_and_what_is_missing_has_no_influence():
    torch.manual_seed(0)
    completion = SCRIPT["Completion"](4)
    images = torch.randn(2, 4, 6, 7, 5)
    available = torch.tensor([[True, False, True, False], [True] * 4])
    filled = completion(images, available)
    assert torch.equal(filled[1], images[1])
    assert torch.equal(filled[0, [0, 2]], images[0, [0, 2]])
    assert not torch.equal(filled[0, [1, 3]], images[0, [1, 3]])
    images[0, 1] = float("nan")
    assert torch.equal(completion(images, available), filled)


def test_fitting_learns_a_contrast_that_follows_from_another(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setitem(SCRIPT["fitted"].__globals__, "N_STEPS", 200)
    first = torch.randn(1, 20, 26, 30)
    cases = [(torch.cat([first, 2 * first + 1]), torch.zeros(1, 20, 26, 30))]
    completion = SCRIPT["fitted"](cases)
    guess = completion(cases[0][0][None], torch.tensor([[True, False]]))[0, 1]
    assert (guess - cases[0][0][1]).abs().mean() < 0.3 * cases[0][0][1].abs().mean()


def test_image_and_labels_are_cut_alike_and_small_cases_padded():
    images = torch.arange(20 * 40 * 30.0).view(1, 20, 40, 30) + 1
    cut, labels = SCRIPT["cube"](images, images)
    assert cut.shape == (1, 24, 24, 24)
    assert torch.equal(cut, labels)
    assert (cut[:, 20:] == 0).all()
