"""The list of the paper's arms, as the command prints it."""

from nnunetv2_d2net.cli.main import main
from nnunetv2_d2net.plugin.training.paper import ROWS
from nnunetv2_d2net.study.paper_tables import NOTE


def test_every_row_is_listed_with_its_trainer_and_what_is_printed(capsys):
    assert main(["study", "--list"]) == 0
    table, _, note = capsys.readouterr().out.rstrip().rpartition("\n\n")
    assert note == NOTE
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert len(lines) == len(ROWS)
    assert ["Table VI", "5 levels", "D2NetTrainerPaperDistilled5", "76.9", "66.8", "42.6", "62.1"] in lines
    assert ["Fig. 8", "sc 0.5", "D2NetTrainerPaperSC0p5", "-", "-", "-", "-"] in lines
