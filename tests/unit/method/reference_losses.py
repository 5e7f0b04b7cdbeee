"""D2-Net's total loss a second time: one case, anchor, partner, pair of levels and class after the other.

Written from the paper's Eq. (1) to (11) and the deviations that the docstrings name; autograd goes through it.
"""

import math
from itertools import product

import torch

# --- modality contrast, Eq. (1) to (5) ---


def partners(valid, b, m, u, options):
    """Positives and negatives of the code of case b, modality m and slice u, as indices."""
    n_cases, n_modalities, n_slices = valid.shape
    others = [k for k in range(n_modalities) if k != m]
    if n_slices == 1:
        positives, negatives = [(a, m, 0) for a in range(n_cases) if a != b], [(b, k, 0) for k in others]
    elif options.sampling == "all_pairs":
        positives, negatives = [(b, m, v) for v in range(n_slices) if v != u], [(b, k, u) for k in others]
    else:
        radius = max(1, min(options.negative_radius, (n_slices - 1) // 2))
        middle, positives = round(48 / 128 * n_slices), []
        around = [middle, *(middle + sign * i for i in range(1, n_slices) for sign in (-1, 1))]
        for distance in [d for d in around if 0 < d < n_slices][: options.n_positives]:
            later_first = [v for v in (u + distance, u - distance) if 0 <= v < n_slices and valid[b, m, v]]
            positives += [(b, m, v) for v in later_first[:1]]
        start = u - radius
        while start + 2 * radius >= n_slices:
            start -= 1
        window = [v for v in range(max(0, start), max(0, start) + 2 * radius + 1) if v != u and v < n_slices]
        negatives = [(b, k, v) for k in others for v in window]
    return [p for p in positives if valid[p]], [n for n in negatives if valid[n]]


def contrast(codes, valid, options):
    """Mean over all pairs of an anchor that has a negative with one of its positives."""

    def h(p, q):
        norms = [torch.sqrt((code * code).sum()).clamp_min(0.01) for code in (p, q)]
        return torch.exp((p * q).sum() / norms[0] / norms[1] / options.temperature)

    losses = []
    for anchor in product(*map(range, valid.shape)):
        positives, negatives = partners(valid, *anchor, options) if valid[anchor] else ([], [])
        pushed = sum(h(codes[anchor], codes[negative]) for negative in negatives)
        for pulled in [h(codes[anchor], codes[positive]) for positive in positives if negatives]:
            losses.append(-torch.log(pulled / (pulled + pushed)))
    return sum(losses) / len(losses) if losses else 0 * codes.sum()


def spectra(codes, drop_dc):
    """Amplitude of every frequency, by the sum that defines it."""
    n = codes.shape[-1]
    frequencies = []
    for k in range(1 if drop_dc else 0, n):
        real = sum(codes[..., i] * math.cos(2 * math.pi * i * k / n) for i in range(n))
        imaginary = sum(codes[..., i] * -math.sin(2 * math.pi * i * k / n) for i in range(n))
        frequencies.append(torch.sqrt(real**2 + imaginary**2))
    return torch.stack(frequencies, -1)


def map_spectra(maps, drop_dc):
    """The same along both axes of a slice, (..., K, H, W) to (..., n)."""
    height, width = maps.shape[-2:]
    y, x = torch.arange(height, dtype=maps.dtype)[:, None], torch.arange(width, dtype=maps.dtype)
    frequencies = []
    for k, m in list(product(range(height), range(width)))[1 if drop_dc else 0 :]:
        phase = 2 * math.pi * (k * y / height + m * x / width)
        parts = [(maps * wave).sum((-2, -1)) for wave in (torch.cos(phase), torch.sin(phase))]
        frequencies.append(torch.linalg.vector_norm(torch.stack(parts), dim=0))  # its gradient at 0 is 0
    return torch.stack(frequencies, -1).flatten(-2)


# --- voxels ---


def pooled(one, size):
    """Mean of every cell of a coarser grid; (K, *spatial)."""
    return cells(one, size).sum(-1) / (one[0].numel() / math.prod(size))


def any_pooled(mask, size):
    return cells(mask[None].double(), size)[0].sum(-1) > 0


def cells(one, size):
    """The voxels of each cell along the last axis, (K, *size, n)."""
    split = [n for length, of_grid in zip(one.shape[1:], size, strict=True) for n in (of_grid, length // of_grid)]
    dim = len(size)
    order = [0, *range(1, 2 * dim, 2), *range(2, 2 * dim + 1, 2)]
    return one.reshape(len(one), *split).permute(order).reshape(len(one), *size, -1)


def probabilities(logits, regions):
    """Of one case (C, *spatial)."""
    if regions:
        return [1 / (1 + torch.exp(-x)) for x in logits]
    total = sum(torch.exp(x) for x in logits)
    return [torch.exp(x) / total for x in logits]


def truth(target, b, n_targets, regions, ignore_label):
    """Masks of every target and the ignored voxels of one case, or None."""
    if regions:
        masks = [target[b, c].double() for c in range(n_targets)]
        return masks, None if ignore_label is None else target[b, n_targets] != 0
    masks = [(target[b, 0] == c).double() for c in range(n_targets)]
    return masks, None if ignore_label is None else target[b, 0] == ignore_label


# --- distillation, Eq. (8) and (9) ---


def normalized(one):
    centered = [channel - channel.sum() / channel.numel() for channel in one]
    return [c / torch.sqrt((c * c).sum() / c.numel() + 1e-5) for c in centered]


def distillation(banks, options, regions, ignored):
    """Both levels: sum or mean over the pairs of the weighted distance and divergence, mean over the cases."""
    student_logits, teacher_logits, student_features, teacher_features = banks
    n_cases = len(student_logits[0])
    feature = logit = 0.0
    pairs = list(product(range(len(student_features)), range(len(teacher_features))))
    for s, t in pairs:
        size = tuple(map(min, student_features[s].shape[2:], teacher_features[t].shape[2:]))
        for b in range(n_cases):
            student = normalized(pooled(student_features[s][b], size))
            teacher = normalized(pooled(teacher_features[t][b], size))
            weight = (1 + affinity(student, teacher)) / 2 / n_cases
            errors = [((x - y) ** 2).sum() / x.numel() for x, y in zip(student, teacher, strict=True)]
            feature = feature + weight * sum(errors) / len(errors)
            divergence = divergences(
                *(pooled(maps[i][b], size) for maps, i in ((student_logits, s), (teacher_logits, t))), regions
            )
            valid = torch.ones(size).bool() if ignored is None else ~any_pooled(ignored[b], size)
            logit = logit + weight * divergence[valid].sum() / max(1, int(valid.sum()))
    count = len(pairs) if options.kd_reduction == "mean" else 1
    return feature / count, logit / count


def affinity(student, teacher):
    """Mean over the voxels of the cosine over the channels; a constant."""
    dot = sum(x * y for x, y in zip(student, teacher, strict=True))
    lengths = [torch.sqrt(sum(x * x for x in side)) for side in (student, teacher)]
    return float((dot / (lengths[0] * lengths[1]).clamp_min(1e-12)).detach().mean())


def divergences(student, teacher, regions):
    """KL(teacher || student) at every voxel."""
    p, q = probabilities(teacher, regions), probabilities(student, regions)
    total = sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))
    return total + sum((1 - a) * torch.log((1 - a) / (1 - b)) for a, b in zip(p, q, strict=True)) if regions else total


# --- the other terms ---


def reconstruction(reconstructions, images, present):
    """Over the images that are there, whether they were shown or not."""
    losses = []
    for b, m in product(*map(range, present.shape)):
        if present[b, m]:
            errors = reconstructions[b, m] - pooled(images[b, m][None], reconstructions.shape[2:])[0]
            losses.append((errors**2).sum() / errors.numel())
    return sum(losses) / len(losses)


def auxiliary(logits, masks_of_cases, ignored):
    """One level, Eq. (7): mean over the valid voxels of all cases and targets."""
    losses = []
    for b, masks in enumerate(masks_of_cases):
        valid = slice(None) if ignored is None else ~ignored[b]
        for p, y in zip(probabilities(logits[b], regions=True), masks, strict=True):
            losses.append((-y * torch.log(p) - (1 - y) * torch.log(1 - p))[valid].flatten())
    return torch.cat(losses).mean()


def consistency(teacher, student, regions, ignored):
    size, errors = teacher.shape[2:], []
    for b in range(len(teacher)):
        valid = slice(None) if ignored is None else ~any_pooled(ignored[b], size)
        sides = probabilities(teacher[b], regions=True), probabilities(student[b], regions)
        for p, q in zip(*sides, strict=True):
            errors.append(((p - pooled(q[None], size)[0]) ** 2)[valid].flatten())
    return torch.cat(errors).mean()


def terms(outputs, targets, images, present, setting):
    """Every term by name; ``setting`` has options, regions, ignore_label, level_weights and segmentation.

    Targets are a list over resolution, of full resolution alone without deep supervision.
    """
    options, regions = setting.options, setting.regions
    student, teacher = outputs.student_logits, outputs.teacher_logits
    n_cases, n_targets = teacher[0].shape[:2]
    levels = []  # (masks of cases, ignored of cases or None)
    for target in targets:
        of_cases = [truth(target, b, n_targets, regions, setting.ignore_label) for b in range(n_cases)]
        levels.append(([m for m, _ in of_cases], None if of_cases[0][1] is None else [i for _, i in of_cases]))
    ignored = levels[0][1]
    first, n_bank = outputs.first_bank_level, len(outputs.student_features)
    shift = first - outputs.first_teacher_level
    banks = student[first : first + n_bank], teacher[shift : shift + n_bank]
    feature, logit = distillation((*banks, *outputs[2:4]), options, regions, ignored)
    codes, valid, maps = outputs.modality_codes, outputs.informative_slices, outputs.frequency_maps
    of_frequency = spectra(codes, options.drop_dc) if maps is None else map_spectra(maps, options.drop_dc)
    return {
        "seg": setting.segmentation(student, targets),
        "sc": contrast(codes, valid, options),
        "fc": contrast(of_frequency, valid, options),
        "rec": reconstruction(outputs.reconstructions, images, present),
        "kd_feature": feature,
        "kd_logit": logit,
        "aux": all_auxiliaries(outputs, levels, setting.level_weights),
        "consis": consistency(teacher[0], student[0], regions, ignored),
    }


def all_auxiliaries(outputs, levels, level_weights):
    """Deep supervision's weights on the levels that the teacher decodes, with the same sum; else its finest level."""
    first, teacher = outputs.first_teacher_level, outputs.teacher_logits
    decoded = [(level, w) for level, w in enumerate(level_weights) if level >= first and w > 0]
    if not decoded:
        size, (masks, ignored) = teacher[0].shape[2:], levels[0]
        masks = [[pooled(mask[None], size)[0] for mask in of_case] for of_case in masks]
        ignored = None if ignored is None else [any_pooled(mask, size) for mask in ignored]
        return sum(level_weights) * auxiliary(teacher[0], masks, ignored)
    scale = sum(level_weights) / sum(w for _, w in decoded)
    return sum(scale * w * auxiliary(teacher[level - first], *levels[level]) for level, w in decoded)
