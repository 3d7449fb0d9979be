"""Several teachers that answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdlearn.core.checks import check_choice, check_class_dimension, check_logit_values
from kdlearn.core.inputs import logits_of


class Ensemble(nn.Module):
    r"""Average the answers of several models.

    .. math:: z_\text{logits} = \frac{1}{M} \sum_m z_m, \qquad
              z_\text{probabilities} = \log \frac{1}{M} \sum_m \sigma(z_m)

    Convention
        "probabilities": the arithmetic mean of softmax over the last dimension, what voting models
        say together; returned as its logarithm, so that a softmax gives it back at T = 1.
        "logits": the geometric mean after normalization; it keeps the scale that a temperature
        divides. For outputs that a sigmoid follows it is the one to take.

    Args:
        models: at least one; layers are tapped as ``"models.0.group1"``.
        mean: "probabilities" or "logits".

    Raises:
        ValueError: no model, or another mean; the models answer with one logit, of which a softmax
            makes 1 whatever it is.

    Source: Hinton, Vinyals and Dean (2015), section 1, which names both means.

    Example:
        >>> sure, unsure = nn.Identity(), nn.Identity()
        >>> answer = Ensemble([sure, unsure])(torch.tensor([[0.0, 2.0]]))
        >>> answer.softmax(1)[0, 1].item()
        0.8807...
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        mean: Literal["probabilities", "logits"] = "probabilities",
    ) -> None:
        super().__init__()
        check_choice(mean, "mean", ("probabilities", "logits"))
        if not models:
            raise ValueError("an ensemble has no model: pass at least one.")
        self.models = nn.ModuleList(models)
        self.mean = mean

    def extra_repr(self) -> str:
        """Return the kind of mean, which tells one ensemble from another."""
        return f"mean={self.mean!r}"

    def forward(self, *args: Any, **named: Any) -> Tensor:
        """Return the mean of what the models say."""
        answers = torch.stack([logits_of(model(*args, **named), model) for model in self.models])
        if self.mean == "logits":
            return answers.mean(0)
        if answers.shape[-1] == 1:
            raise ValueError(
                "the models of the ensemble answer with 1 logit, and softmax over one class is "
                "always 1: pass mean='logits'."
            )
        check_class_dimension(answers[0])
        for answer in answers:
            check_logit_values(answer, "the answers of a model of the ensemble")
        return answers.log_softmax(-1).logsumexp(0) - torch.tensor(len(answers)).log()
