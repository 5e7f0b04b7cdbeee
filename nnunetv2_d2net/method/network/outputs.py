"""What the network returns in training: the tensors that the losses read, by name."""

from typing import NamedTuple

from torch import Tensor


class D2NetOutputs(NamedTuple):
    """Outputs of one training forward pass.

    Axes: ``B`` case, ``M`` modality, ``G`` slice, ``N`` code, ``C`` target (segmentation head), ``K`` feature channel.
    Lists over resolution start at full resolution. The levels of the feature banks are a run of the decoder's levels:
    ``student_logits[first_bank_level + i]`` has the size of ``student_features[i]``.

    Attributes:
        student_logits: Logits of the holistic student at every decoder level, each ``(B, C, *spatial)``.
        teacher_logits: Logits of the binary teacher, one map per target, each ``(B, C, *spatial)``, from decoder level
            ``first_teacher_level`` on.
        student_features: Feature bank of the student, projected to a common width, each ``(B, K, *spatial)``.
        teacher_features: Feature bank of the teacher at the same levels, its C maps fused, each ``(B, K, *spatial)``.
        first_bank_level: Decoder level of the finest bank entry.
        first_teacher_level: Finest decoder level that the teacher decodes.
        modality_codes: Modality-specific codes c, ``(B, M, G, N)``; those of absent modalities mean nothing.
        informative_slices: Bool ``(B, M, G)``: the modality is available and its slice is not constant in the patch.
        reconstructions: Reconstructed images x', ``(B, M, *spatial)``, at or below full resolution.
        frequency_maps: What the frequency loss contrasts instead of the codes, ``(B, M, G, K, H, W)``; None for them.
    """

    student_logits: list[Tensor]
    teacher_logits: list[Tensor]
    student_features: list[Tensor]
    teacher_features: list[Tensor]
    first_bank_level: int
    first_teacher_level: int
    modality_codes: Tensor
    informative_slices: Tensor
    reconstructions: Tensor
    frequency_maps: Tensor | None = None
