"""D2-Net's training pass a second time: one case, modality, slice, target and level after the other.

Written from the paper's Fig. 2 and section III, and the deviations that the docstrings name. It reads the weights of a
network by name and shares no code with it; only single convolutions are torch's. Autograd goes through it.
"""

import torch
import torch.nn.functional as F

from nnunetv2_d2net.method.network.outputs import D2NetOutputs


class Reference:
    """The pass of a D2-Net around a plain U-Net with one convolution per stage."""

    def __init__(self, network, strides, options):
        self.weights = dict(network.named_parameters())
        self.strides, self.options = strides, options
        self.n_stages, self.n_levels = len(strides), len(strides) - 1
        self.n_targets = network.decoder.num_classes

    # --- layers, of one case: (K, *spatial) ---

    def conv(self, x, name, stride=1):
        return convolve(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), stride)

    def up(self, x, name, stride):
        convolve_transposed = (F.conv_transpose2d, F.conv_transpose3d)[x.ndim - 3]
        weight, bias = self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias")
        return convolve_transposed(x[None], weight, bias, stride)[0]

    def norm(self, x, name):
        return affine(normalized(x), self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def block(self, x, name, stride=1, added=0):
        return leaky(self.norm(self.conv(x, f"{name}.conv", stride) + added, f"{name}.norm"))

    def linear(self, vector, name):
        return self.weights[f"{name}.weight"] @ vector + self.weights.get(f"{name}.bias", 0)

    def film(self, x, vector, name):
        """1 + gamma and beta for every channel, gammas first."""
        values = self.linear(vector, name)
        return affine(x, 1 + values[: len(x)], values[len(x) :])

    # --- the paper's modules ---

    def modality_encoder(self, image, modality):
        """E_M of one slice (H, W): four convolutions of stride 2, the mean over the slice, a matrix."""
        own = modality if self.options.independent_encoders else 0
        x = image[None]
        maps = [x]
        for layer, width in zip((0, 2, 4, 6), (8, 16, 32, 32), strict=True):
            rows = slice(own * width, (own + 1) * width)
            weight, bias = (self.weights[f"modality_encoder.convs.{layer}.{kind}"][rows] for kind in ("weight", "bias"))
            x = leaky(convolve(x, weight, bias, 2))
            maps.append(x)
        pooled = torch.stack([channel.sum() / channel.numel() for channel in x])
        n = self.options.code_length
        return self.weights["modality_encoder.linear.weight"][own * n : (own + 1) * n, :, 0] @ pooled, maps

    def tumor_codes(self, codes):
        """E_TM: codes [M][G] of one case to those of each target, slice by slice, then their mean."""
        n_slices, total = len(codes[0]), 0
        if not self.options.tumor_projection:
            return [torch.cat([sum(of_modality) / n_slices for of_modality in codes])] * self.n_targets
        for g in range(n_slices):
            x = torch.stack([of_modality[g] for of_modality in codes])  # (M, N)
            for layer in range(3):
                name = f"modality_projection.layers.{layer}"
                x = self.weights[f"{name}.weight"][:, :, 0, 0] @ x + self.weights[f"{name}.bias"][:, None]
            total = total + x / n_slices
        return list(total)

    def encoder(self, images, available):
        """E_T, told at every stage what there is, or what there is not, if that is asked for."""
        features, x = [], images
        mask = ~available if self.options.modulate_missing else available
        for stage, stride in enumerate(self.strides):
            lent = self.lent(images, available) if stage == 0 and self.options.lend_to_absent else 0
            x = self.block(x, f"encoder.stages.{stage}.0.convs.0", stride, lent)
            if self.options.modulate_encoder or self.options.modulate_missing:
                x = self.film(x, mask.to(x.dtype), f"availability_modulation.linears.{stage}")
            features.append(x)
        return features

    def lent(self, images, available):
        """What the modalities that are there lend to each that is not, on average over them."""
        weight, total = self.weights["availability_modulation.lending.weight"], 0
        there = [n for n in range(len(images)) if available[n]]
        for m in range(len(images)):
            for n in [] if available[m] else there:
                total = total + convolve(images[n][None], weight[m][:, n : n + 1]) / len(there)
        return total

    def content_reconstruction(self, z, code, target):
        """E_R of one target: four residual convolutions with AdaIN, whose parameters that target's MLP makes."""
        name = "content_reconstruction"
        x = z if self.options.content_width == 1 else self.conv(z, f"{name}.reduce")
        width = len(x)
        for layer, n_out in ((0, 32), (2, 8 * width)):
            rows = slice(target * n_out, (target + 1) * n_out)
            weight, bias = (self.weights[f"{name}.target_codes.layers.{layer}.{k}"][rows] for k in ("weight", "bias"))
            code = weight[:, :, 0] @ (leaky(code) if layer else code) + bias
        for i in range(4):
            gamma, beta = code[2 * i * width : (2 * i + 1) * width], code[(2 * i + 1) * width : (2 * i + 2) * width]
            x = x + adain(self.conv(x, f"{name}.convs.{i}"), gamma, beta)
        return x

    def fusion(self, tumor_features):
        x = self.block(torch.cat(tumor_features), "fusion.conv_in")
        context = torch.stack([channel.sum() / channel.numel() for channel in x])
        hidden = leaky(self.linear(context, "fusion.squeeze_excite.squeeze"))
        gates = 1 / (1 + torch.exp(-self.linear(hidden, "fusion.squeeze_excite.excite")))
        return self.block(torch.stack([x[k] + gates[k] * x[k] for k in range(len(x))]), "fusion.conv_out")

    def student(self, skips, tumor_codes, holistic):
        """D^S: logits and features by level, full resolution first."""
        logits, features, x = {}, {}, holistic
        for i, level in enumerate(reversed(range(self.n_levels))):
            skip = skips[level]
            if self.options.modulate_skips:
                skip = self.film(skip, torch.cat(tumor_codes), f"skip_modulation.linears.{level}")
            x = torch.cat((self.up(x, f"decoder.transpconvs.{i}", self.strides[level + 1]), skip))
            x = features[level] = self.block(x, f"decoder.stages.{i}.convs.0")
            logits[level] = self.classified(x, f"decoder.seg_layers.{i}", level)
        return logits, features

    def classified(self, x, name, level):
        """Logits of one level: below full resolution by several convolutions, if that is asked for."""
        n_before = self.options.classifier_convs - 1 if level else 0
        for i in range(n_before):
            x = self.block(x, f"{name}.{i}")
        return self.conv(x, f"{name}.{n_before}" if n_before else name)

    def teacher(self, tumor_feature, skips):
        """D^T of one target: a decoder as any other, from its features to its finest level."""
        finest = min(self.options.teacher_level, self.n_levels - 1)
        logits, features, x = {}, {}, tumor_feature
        for level in reversed(range(finest, self.n_levels)):
            name = f"teacher.levels.{level - finest}"
            x = torch.cat((self.up(x, f"{name}.up", self.strides[level + 1]), skips[level]))
            weight = torch.cat([self.weights[f"{name}.conv_{part}.weight"] for part in ("up", "skip")], 1)
            x = self.block(leaky(self.norm(convolve(x, weight), f"{name}.norm")), f"{name}.conv")
            features[level], logits[level] = x, self.classified(x, f"{name}.classifier", level)[0]
        return logits, features

    def image_decoder(self, z, codes, skips, modality):
        """D_R of one modality, from z and the mean of its codes over the slices."""
        own = f"image_decoder.decoders.{modality}" if self.options.independent_image_decoders else "image_decoder"
        code = sum(codes) / len(codes)
        x = self.conv(z, f"{own}.reduce")
        levels = range(min(self.options.reconstruction_level, self.n_stages - 2), self.n_stages - 1)
        for i, level in enumerate(reversed(levels)):
            for axis, factor in enumerate(self.strides[level + 1]):
                x = x.repeat_interleave(factor, axis + 1)
            x = self.conv(x, f"{own}.convs.{i}")
            if self.options.image_decoder_skips:
                x = x + self.conv(skips[level], f"{own}.skip_convs.{i}")
            values = self.linear(code, f"{own}.adain.{i}")
            x = adain(x, values[: len(x)], values[len(x) :])
        return self.conv(x, f"{own}.output")[0]

    # --- everything ---

    def one_case(self, images, available):
        """All outputs of one case, (M, *spatial) and (M,), as plain dicts and lists."""
        images = torch.stack([image if there else 0 * image for image, there in zip(images, available, strict=True)])
        slices = [list(image) if image.ndim == 3 else [image] for image in images]
        read = [[self.modality_encoder(s, m) for s in of_m] for m, of_m in enumerate(slices)]
        codes = [
            [code if available[m] else self.weights["absent_codes.embedding"][m] for code, _ in of_m]
            for m, of_m in enumerate(read)
        ]
        level = self.options.frequency_level
        maps = [torch.stack([maps[level] for _, maps in of_m]) for of_m in read]
        tumor_codes, skips = self.tumor_codes(codes), self.encoder(images, available)
        z = skips[-1]
        tumor_features = [self.content_reconstruction(z, tumor_codes[c], c) for c in range(self.n_targets)]
        holistic = self.fusion(tumor_features)
        if self.options.gated_bottleneck:
            holistic = z + affine(holistic, self.weights["bottleneck_gate.gate"], 0 * holistic[:, 0])
        student_logits, student_features = self.student(skips, tumor_codes, holistic)
        teachers = [self.teacher(tumor_feature, skips) for tumor_feature in tumor_features]
        decoded = sorted(teachers[0][0])
        n_banks = self.options.distilled_levels
        bank = [level for level in decoded if level > 0 or n_banks > 4][-n_banks:] or decoded
        return {
            "student_logits": [student_logits[level] for level in range(self.n_levels)],
            "teacher_logits": [torch.stack([logits[level] for logits, _ in teachers]) for level in decoded],
            "student_features": [
                self.conv(student_features[level], f"feature_banks.student.{i}") for i, level in enumerate(bank)
            ],
            "teacher_features": [
                self.conv(torch.cat([features[level] for _, features in teachers]), f"feature_banks.teacher.{i}")
                for i, level in enumerate(bank)
            ],
            "levels": (bank[0], decoded[0]),
            "modality_codes": torch.stack([torch.stack(of_m) for of_m in codes]),
            "informative_slices": torch.tensor(
                [
                    [bool(available[m]) and bool((s != s.flatten()[0]).any()) for s in slices[m]]
                    for m in range(len(slices))
                ]
            ),
            "reconstructions": torch.stack([self.image_decoder(z, of_m, skips, m) for m, of_m in enumerate(codes)]),
            "frequency_maps": torch.stack(maps) if level < 4 else None,
        }

    def outputs(self, images, available):
        """The pass of a batch, in the form of the network's."""
        cases = [self.one_case(*case) for case in zip(images, available, strict=True)]

        def banks(name):
            return [torch.stack([case[name][i] for case in cases]) for i in range(len(cases[0][name]))]

        def stacked(name):
            return torch.stack([case[name] for case in cases])

        return D2NetOutputs(
            *(banks(name) for name in D2NetOutputs._fields[:4]),
            *cases[0]["levels"],
            *(stacked(name) for name in D2NetOutputs._fields[6:9]),
            None if cases[0]["frequency_maps"] is None else stacked("frequency_maps"),
        )


def convolve(x, weight, bias=None, stride=1):
    padding = [k // 2 for k in weight.shape[2:]]
    return (F.conv2d, F.conv3d)[x.ndim - 3](x[None], weight, bias, stride, padding)[0]


def leaky(x):
    return torch.where(x > 0, x, 0.01 * x)


def affine(x, scales, shifts):
    return torch.stack([scale * channel + shift for channel, scale, shift in zip(x, scales, shifts, strict=True)])


def normalized(x):
    """Mean 0 and variance 1 of every channel."""
    centered = [channel - channel.sum() / channel.numel() for channel in x]
    return torch.stack([c / torch.sqrt((c * c).sum() / c.numel() + 1e-5) for c in centered])


def adain(x, gamma, beta):
    return leaky(affine(normalized(x), 1 + gamma, beta))
