"""The honest rival: nnU-Net's own network and loss, and nothing but modality dropout."""

from nnunetv2_d2net.plugin.training.modality_dropping import ModalityDroppingTrainer


class nnUNetTrainerModalityDropout(ModalityDroppingTrainer):
    """nnU-Net with modality dropout: the same dropping and the same ``checkpoint_best`` as D2NetTrainer, no more."""
