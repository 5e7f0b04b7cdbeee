import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunetv2_d2net.plugin.training.schedule import PhasedPolyLR


def rates(make, n):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = make(optimizer)
    found = []
    for epoch in range(n):
        schedule.step(epoch)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_without_a_first_part_it_is_nnunets():
    ours = rates(lambda o: PhasedPolyLR(o, 0.01, 7, 0), 7)
    assert ours == rates(lambda o: PolyLRScheduler(o, 0.01, 7), 7)


def test_each_part_is_nnunets_schedule_of_its_length():
    ours = rates(lambda o: PhasedPolyLR(o, 0.01, 10, 4), 10)
    parts = [rates(lambda o, n=n: PolyLRScheduler(o, 0.01, n), n) for n in (4, 6)]
    assert ours == pytest.approx([*parts[0], *parts[1]])
    assert ours[4] > ours[3]


def test_going_on_in_the_second_part():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule = PhasedPolyLR(optimizer, 0.01, 10, 4)
    schedule.step(7)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (1 - 3 / 6) ** 0.9)


@pytest.mark.parametrize("following", [None, -1])
@pytest.mark.parametrize("first", [0, 4])
def test_the_next_epoch_needs_no_number(following, first):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    schedule, found = PhasedPolyLR(optimizer, 0.01, 10, first), [optimizer.param_groups[0]["lr"]]
    for _ in range(9):
        schedule.step(following)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx(rates(lambda o: PhasedPolyLR(o, 0.01, 10, first), 10))
