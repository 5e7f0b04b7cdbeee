import pytest

from tests.unit.study.report.synthetic import Synthetic, write_benchmark

HOSTILE = '<img src=x onerror="document.title=1">&'


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder of two arms and modalities; names hold what HTML takes for its own."""
    spec = Synthetic(
        arms=("nnUNetTrainer", "D2NetTrainer"),
        modalities=("T1", "T2"),
        regions={"</script><b>": (1, 2), "core": (2,)},
        cases=("case_0", HOSTILE),
        shape=(6, 20, 16),
    )
    return write_benchmark(tmp_path_factory.mktemp("small"), spec)
