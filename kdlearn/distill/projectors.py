"""Small trainable modules that bring a student's tensors to the shape of the teacher's.

Their parameters are trained with the student and thrown away after it.
"""

from torch import Tensor, nn


class LinearProjector(nn.Module):
    """Map vectors of one width to another, for embeddings (B, D) or hidden states (B, L, D).

    Args:
        student_width: D of the student.
        teacher_width: D of the teacher.

    Source: the ``fit_dense`` of TinyBERT (Jiao et al., 2020, equation 8) is one such map, shared
        by all layers.

    Example:
        >>> import torch
        >>> LinearProjector(4, 6)(torch.ones(2, 5, 4)).shape
        torch.Size([2, 5, 6])
    """

    def __init__(self, student_width: int, teacher_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(student_width, teacher_width)

    def forward(self, states: Tensor) -> Tensor:
        """From (..., student_width) to (..., teacher_width)."""
        return self.linear(states)


class ConvProjector(nn.Module):
    """Map feature maps of some channels to others, position by position.

    A 1x1 convolution without bias, then batch normalization; no ReLU, so it can also meet
    features before the activation.

    Args:
        student_channels: C of the student.
        teacher_channels: C of the teacher.

    Source: the regressor of FitNets (Romero et al., 2015, section 2.2), as a 1x1 convolution.

    Example:
        >>> import torch
        >>> ConvProjector(4, 6)(torch.ones(2, 4, 5, 5)).shape
        torch.Size([2, 6, 5, 5])
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(teacher_channels)

    def forward(self, features: Tensor) -> Tensor:
        """From (B, student_channels, H, W) to (B, teacher_channels, H, W)."""
        return self.norm(self.conv(features))


class Paraphraser(nn.Module):
    """An autoencoder of the teacher's features; its code is the factor of factor transfer.

    Train it first, alone, with the mean squared error of :meth:`reconstruct` on the teacher's
    features. Then freeze it and compare ``paraphraser(teacher_features)`` with the output of a
    projector on the student.

    Args:
        channels: C of the teacher's features.
        factor_channels: C of the factor; half of ``channels`` is usual.

    Source: Kim, Park and Kwak, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", NeurIPS 2018, section 3, with one convolution a side instead of three.

    Example:
        >>> import torch
        >>> paraphraser, features = Paraphraser(4, 2), torch.ones(1, 4, 5, 5)
        >>> paraphraser(features).shape, paraphraser.reconstruct(features).shape
        (torch.Size([1, 2, 5, 5]), torch.Size([1, 4, 5, 5]))
    """

    def __init__(self, channels: int, factor_channels: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, factor_channels, 3, padding=1), nn.LeakyReLU(0.1)
        )
        self.decoder = nn.Conv2d(factor_channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """The factor, shape (B, factor_channels, H, W)."""
        return self.encoder(features)

    def reconstruct(self, features: Tensor) -> Tensor:
        """The features again, from their factor."""
        return self.decoder(self.encoder(features))
