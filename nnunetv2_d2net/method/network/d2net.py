"""D2-Net: nnU-Net's planned U-Net with the paper's two stages between its encoder and its decoder (Fig. 2)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar, cast

from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunetv2_d2net.method.modalities import infer_available, zero_missing
from nnunetv2_d2net.method.network.availability import AvailabilityModulation, parts_of
from nnunetv2_d2net.method.network.blocks import LEAKY_SLOPE, Encoder, feature_map_sizes
from nnunetv2_d2net.method.network.decoder import (
    decode_with_features,
    deepen_classifiers,
    narrow,
    student_widths,
)
from nnunetv2_d2net.method.network.md_stage import (
    AbsentCodes,
    ImageDecoder,
    ImageDecoders,
    ModalityEncoder,
    ModalityProjection,
    Untransferred,
    informative_slices,
)
from nnunetv2_d2net.method.network.outputs import D2NetOutputs
from nnunetv2_d2net.method.network.td_stage import (
    PAPER_LEVELS,
    BinaryTeacher,
    BottleneckGate,
    ContentReconstruction,
    FeatureBanks,
    Fusion,
    SkipModulation,
)

T = TypeVar("T")

CODES = 4
"""Level of the modality encoders at which the codes are."""

TRAINING_BRANCHES = ("image_decoder", "teacher", "feature_banks")
"""Modules of :class:`D2Net` that prediction never runs."""


class D2NetOptions(NamedTuple):
    """What the paper leaves open about the network; the defaults are this project's choices.

    Attributes:
        code_length: N, length of a code; the paper has 8.
        independent_encoders: One modality encoder per modality, as the paper says, instead of one that all share.
        encoder_norm: Normalization inside the modality encoders; the paper has ``nn.BatchNorm2d``.
        teacher_width: Width of the binary teacher relative to the student.
        teacher_level: Finest decoder level of the binary teacher; 0 is full resolution, as in the paper.
        image_decoder_width: Width of the image decoder relative to the encoder.
        reconstruction_level: Encoder level at which images are reconstructed; 0 is full resolution.
        image_decoder_skips: Give the image decoder the encoder's skips.
        modulate_skips: Let the tumor-specific codes modulate the student's skips, too.
        modulate_encoder: Let the mask of available modalities modulate every stage of the tumor encoder.
        modulate_missing: The same with the mask of missing modalities and no bias, which leaves complete input alone.
        lend_to_absent: With ``modulate_missing``: let the first convolution have filters for what is missing.
        gated_bottleneck: Add the holistic features to the tumor feature z through a gate that starts at zero, instead
            of putting them in its place: with this and without ``modulate_encoder`` the network is an exact superset
            of the planned U-Net, and starts as that.
        content_width: Width of the content reconstruction E_R relative to the bottleneck; the paper has 1.
        independent_image_decoders: One image decoder per modality, as the paper says, instead of one for all.
        classifier_convs: Convolutions of each auxiliary classifier below full resolution; the paper has several.
        tumor_projection: Have E_TM; without it (Table IV) every target gets the codes of all modalities.
        distilled_levels: Decoder levels in the feature banks, from the deepest one (Table VI); fewer where there are
            fewer below full resolution. More than 4 reach full resolution where the teacher does.
        frequency_level: What the frequency loss contrasts (Table VIII): 4 for the codes, 1 to 3 for the maps behind so
            many convolutions of the modality encoders, 0 for the images.
        student_width: Width of the student relative to the planned decoder (Table IX).
        recompute_branches: Compute the training-only branches again in the backward pass instead of keeping their
            feature maps (activation checkpointing): the same results with less memory and more time.
    """

    code_length: int = 8
    independent_encoders: bool = False
    encoder_norm: type[nn.Module] | None = None
    teacher_width: float = 0.25
    teacher_level: int = 1
    image_decoder_width: float = 0.25
    reconstruction_level: int = 1
    image_decoder_skips: bool = False
    modulate_skips: bool = False
    modulate_encoder: bool = False
    modulate_missing: bool = False
    lend_to_absent: bool = False
    gated_bottleneck: bool = False
    recompute_branches: bool = False
    content_width: float = 0.5
    independent_image_decoders: bool = False
    classifier_convs: int = 1
    tumor_projection: bool = True
    distilled_levels: int = PAPER_LEVELS
    frequency_level: int = CODES
    student_width: float = 1.0


PAPER_OPTIONS = D2NetOptions(
    independent_encoders=True,
    encoder_norm=nn.BatchNorm2d,
    teacher_width=1.0,
    teacher_level=0,
    image_decoder_width=1.0,
    reconstruction_level=0,
    content_width=1.0,
    independent_image_decoders=True,
    classifier_convs=2,
)
"""As the paper prints them; the rest of its network is in the plans of D2NetPaperPlanner."""


class Content(NamedTuple):
    """What the encoders know of a case, from which everything else is decoded.

    Attributes:
        skips: Features of every stage of E_T, full resolution first; the last one is the tumor feature z.
        modality_codes: c with embeddings for absent modalities, ``(B, M, G, N)``.
        tumor_codes: Tumor-specific codes, averaged over slices, ``(B, C, N)``; without E_TM ``(B, C, M * N)``.
        frequency_maps: What the frequency loss contrasts instead of the codes, ``(B, M, G, K, H, W)``; None for them.
    """

    skips: list[Tensor]
    modality_codes: Tensor
    tumor_codes: Tensor
    frequency_maps: Tensor | None = None


class D2Net(nn.Module):
    """Segment with any subset of modalities.

    ``encoder`` (E_T) and ``decoder`` (student D^S) are those of the planned U-Net, under nnU-Net's names. In training
    the forward pass returns :class:`D2NetOutputs`; in evaluation it returns what the U-Net would: the student's logits
    ``(B, C, *spatial)``, or a list of them under deep supervision. The teacher and the image decoder then do not run.

    Args:
        unet: A U-Net from nnU-Net's plans; its encoder and decoder become part of this network.
        n_modalities: M, at least 2.
        options: What the paper leaves open.

    Raises:
        ValueError: Fewer than two modalities, or a network that is no U-Net of this kind with at least two stages, or
            options that exclude each other, or that this U-Net has too few levels for.
    """

    def __init__(self, unet: nn.Module, n_modalities: int, options: D2NetOptions | None = None) -> None:
        super().__init__()
        options = options or D2NetOptions()
        encoder, decoder = parts_of(unet)
        if n_modalities < 2:
            raise ValueError(
                f"D2-Net needs at least 2 modalities, this data set has {n_modalities}: train it with nnUNetTrainer"
            )
        _check(options, len(decoder.stages))
        n_targets, n_codes = decoder.num_classes, options.code_length
        if options.student_width != 1:
            narrow(decoder, options.student_width)
        deepen_classifiers(decoder, options.classifier_convs)
        self.n_modalities = n_modalities
        self.recompute_branches = options.recompute_branches
        self.frequency_level = options.frequency_level
        self.encoder = encoder
        self.decoder = decoder
        self.modality_encoder = ModalityEncoder(
            n_modalities, n_codes, independent=options.independent_encoders, norm_op=options.encoder_norm
        )
        self.absent_codes = AbsentCodes(n_modalities, n_codes)
        self.modality_projection = (
            ModalityProjection(n_modalities, n_targets) if options.tumor_projection else Untransferred(n_targets)
        )
        n_tumor_codes = n_codes if options.tumor_projection else n_modalities * n_codes
        self.content_reconstruction = ContentReconstruction(
            encoder, n_targets, n_tumor_codes, width_factor=options.content_width
        )
        self.fusion = Fusion(encoder, n_targets, self.content_reconstruction.width)
        self.availability_modulation = (
            AvailabilityModulation(
                encoder, n_modalities, of_missing=options.modulate_missing, lending=options.lend_to_absent
            )
            if options.modulate_encoder or options.modulate_missing
            else None
        )
        self.bottleneck_gate = BottleneckGate(encoder.output_channels[-1]) if options.gated_bottleneck else None
        self.skip_modulation = SkipModulation(encoder, n_targets, n_tumor_codes) if options.modulate_skips else None
        self.image_decoder: ImageDecoder | ImageDecoders | None = _image_decoder(encoder, n_modalities, options)
        self.teacher: BinaryTeacher | None = BinaryTeacher(
            encoder,
            n_targets,
            self.content_reconstruction.width,
            width_factor=options.teacher_width,
            finest_level=options.teacher_level,
            classifier_convs=options.classifier_convs,
        )
        self.feature_banks: FeatureBanks | None = FeatureBanks(
            encoder, self.teacher, student_widths(decoder), n_levels=options.distilled_levels
        )
        self._initialize_own_parts()
        self.register_load_state_dict_pre_hook(_fit_exported_weights)

    def forward(
        self, images: Tensor, available: Tensor | None = None, modality_codes: Tensor | None = None
    ) -> D2NetOutputs | Tensor | list[Tensor]:
        """Segment; in training also return everything that the losses read.

        Args:
            images: Normalized images, ``(B, M, *spatial)``; what an unavailable modality holds has no influence.
            available: Bool ``(B, M)``; None for callers that can hand over nothing but images, see
                :func:`nnunetv2_d2net.method.modalities.infer_available`.
            modality_codes: What ``modality_encoder`` makes of the images with nothing missing, ``(B, M, G, N)``, for
                callers that segment the same images with several subsets; None to compute them.

        Returns:
            :class:`D2NetOutputs` in training, the student's logits in evaluation.

        Raises:
            RuntimeError: In training, if the branches that only training needs were discarded.
        """
        available = infer_available(images) if available is None else available
        images = zero_missing(images, available)
        content = self.encode(images, available, modality_codes)
        tumor_features = self.content_reconstruction(content.skips[-1], content.tumor_codes)
        holistic_features = self.holistic_features(content, tumor_features)
        if not self.training:
            return self.decode(content, holistic_features)

        if self.teacher is None or self.image_decoder is None or self.feature_banks is None:
            raise RuntimeError("this network was exported for prediction: train with the original checkpoint")
        student_skips = [*self._modulated(content)[:-1], holistic_features]
        student_logits, student_features = decode_with_features(self.decoder, student_skips)
        teacher_logits, student_bank, teacher_bank = self._branch(
            self._teach, tumor_features, content.skips, student_features
        )
        return D2NetOutputs(
            student_logits=student_logits,
            teacher_logits=teacher_logits,
            student_features=student_bank,
            teacher_features=teacher_bank,
            first_bank_level=self.feature_banks.first_level,
            first_teacher_level=self.teacher.finest_level,
            modality_codes=content.modality_codes,
            informative_slices=informative_slices(images, available),
            reconstructions=self._branch(
                self.image_decoder, content.skips[-1], content.modality_codes.mean(2), content.skips
            ),
            frequency_maps=content.frequency_maps,
        )

    def encode(self, images: Tensor, available: Tensor, modality_codes: Tensor | None = None) -> Content:
        """Run E_T, E_M and E_TM on images ``(B, M, *spatial)`` whose missing modalities are zero."""
        maps = None
        if modality_codes is not None:
            codes = modality_codes
        elif self.training and self.frequency_level < CODES:
            codes, maps = self.modality_encoder.codes_and_maps(images, self.frequency_level)
        else:
            codes = self.modality_encoder(images)
        codes = self.absent_codes(codes, available)
        skips = (
            self.encoder(images)
            if self.availability_modulation is None
            else self.availability_modulation.encode(self.encoder, images, available)
        )
        return Content(skips, codes, self.modality_projection(codes.mean(2, keepdim=True))[:, :, 0], maps)

    def holistic_features(self, content: Content, tumor_features: Tensor) -> Tensor:
        """Fuse the features F into what the student decodes, ``(B, K, *bottleneck)``: F', or z and F' behind a gate."""
        fused = self.fusion(tumor_features)
        return fused if self.bottleneck_gate is None else self.bottleneck_gate(content.skips[-1], fused)

    def decode(self, content: Content, holistic_features: Tensor) -> Tensor | list[Tensor]:
        """Run the student as nnU-Net runs its decoder: F' ``(B, K, *bottleneck)`` to logits."""
        return self.decoder([*self._modulated(content)[:-1], holistic_features])

    def discard_training_branches(self) -> None:
        """Keep only what segments; training is refused from then on."""
        self.image_decoder = self.teacher = self.feature_banks = None

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Count the elements of all feature maps of a training pass, for nnU-Net's planner.

        Args:
            input_size: Patch size in voxels, spatial axes only.
        """
        if self.teacher is None or self.image_decoder is None or self.feature_banks is None:
            raise RuntimeError("this network was exported for prediction and cannot be planned for training")
        sizes = feature_map_sizes(self.encoder, input_size)
        bottleneck = math.prod(sizes[-1])
        reconstruction = self.content_reconstruction
        per_target = (2 * reconstruction.n_blocks + 1) * reconstruction.width * reconstruction.n_targets
        student = zip(student_widths(self.decoder)[1:], sizes[1:-1], strict=True)  # nnU-Net's count has one convolution
        classifiers = sum((self.teacher.classifier_convs - 1) * width * math.prod(size) for width, size in student)
        return int(
            self.encoder.compute_conv_feature_map_size(input_size)
            + self.decoder.compute_conv_feature_map_size(input_size)
            + self.modality_encoder.compute_conv_feature_map_size(input_size, self.n_modalities)
            + self.image_decoder.compute_conv_feature_map_size(sizes, self.n_modalities)
            + self.teacher.compute_conv_feature_map_size(sizes)
            + self.feature_banks.compute_conv_feature_map_size(sizes)
            + classifiers
            + bottleneck * (per_target + 2 * self.encoder.output_channels[-1])
        )

    def _teach(
        self, tumor_features: Tensor, skips: Sequence[Tensor], student_features: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return the teacher's logits and both feature banks, which read features that nothing else needs."""
        teacher, feature_banks = cast(BinaryTeacher, self.teacher), cast(FeatureBanks, self.feature_banks)
        logits, features = teacher(tumor_features, skips)
        return logits, *feature_banks(student_features, features)

    def _branch(self, branch: Callable[..., T], *inputs: Tensor | Sequence[Tensor]) -> T:
        if not self.recompute_branches:
            return branch(*inputs)
        # the branches draw no random numbers, so there is no state to restore, which would wait for the device
        return cast(T, checkpoint(branch, *inputs, use_reentrant=False, preserve_rng_state=False))

    def _modulated(self, content: Content) -> list[Tensor]:
        if self.skip_modulation is None:
            return content.skips
        return self.skip_modulation(content.skips, content.tumor_codes)

    def _initialize_own_parts(self) -> None:
        own = [self.modality_encoder, self.content_reconstruction, self.fusion]
        for module in [*own, *(getattr(self, name) for name in TRAINING_BRANCHES)]:
            module.apply(InitWeights_He(LEAKY_SLOPE))
        if self.image_decoder is not None:
            self.image_decoder.reset_output()
        if self.skip_modulation is not None:
            self.skip_modulation.reset()


def _check(options: D2NetOptions, n_levels: int) -> None:
    if options.modulate_encoder and options.modulate_missing:
        raise ValueError("modulate_encoder and modulate_missing exclude each other: choose one")
    if options.distilled_levels > max(PAPER_LEVELS, n_levels - options.teacher_level):
        raise ValueError(
            f"distilled_levels is {options.distilled_levels}, the teacher decodes {n_levels - options.teacher_level}: "
            "distill fewer, or plan a U-Net of more stages"
        )


def _image_decoder(encoder: Encoder, n_modalities: int, options: D2NetOptions) -> ImageDecoder | ImageDecoders:
    decoders = [
        ImageDecoder(
            encoder,
            options.code_length,
            width_factor=options.image_decoder_width,
            output_level=options.reconstruction_level,
            skips=options.image_decoder_skips,
        )
        for _ in range(n_modalities if options.independent_image_decoders else 1)
    ]
    return ImageDecoders(decoders) if options.independent_image_decoders else decoders[0]


def inference_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that segmenting needs, of a :class:`D2Net` or of any other network, which needs them all.

    The D2-Net may be the student of a companion.
    """
    branches = (*TRAINING_BRANCHES, *(f"student.{branch}" for branch in TRAINING_BRANCHES))
    return {
        name: tensor for name, tensor in state_dict.items() if not name.startswith(tuple(f"{b}." for b in branches))
    }


def _fit_exported_weights(network: D2Net, state_dict: dict, prefix: str, *_: object) -> None:
    """Before loading weights that lack exactly the training branches, drop these from the network, too."""
    needed = {prefix + name for name in inference_weights(network.state_dict())}
    training = tuple(f"{prefix}{name}." for name in TRAINING_BRANCHES)
    if needed <= set(state_dict) and not any(name.startswith(training) for name in state_dict):
        network.discard_training_branches()


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers the module learns."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
