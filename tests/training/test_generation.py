import pytest
import torch
from torch import nn

from kdlearn.models import RecurrentLM, TinyTransformer, linearized
from kdlearn.training.generation import generate

PROMPTS = torch.randint(9, (4, 3), generator=torch.Generator().manual_seed(0))


class Forgetful(nn.Module):
    """The same model, which cannot go on where it stopped."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens)


def make(kind):
    torch.manual_seed(1)
    transformer = TinyTransformer(9, 12, 16, 2, 2)
    models = {
        "transformer": transformer,
        "linear": linearized(transformer, "hedgehog"),
        "gru": RecurrentLM(9),
        "lstm": RecurrentLM(9, cell="lstm"),
    }
    return models[kind]


KINDS = ["transformer", "linear", "gru", "lstm"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0, 1, 0.5])
def test_with_and_without_a_memory_the_same_is_written(kind, temperature):
    model, found = make(kind), []
    for each in (model, Forgetful(model)):
        generator = torch.Generator().manual_seed(3)
        found.append(generate(each, PROMPTS, 9, temperature=temperature, generator=generator))
    assert torch.equal(found[0].tokens, found[1].tokens)
    assert found[0].tokens.shape == (4, 12)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_from_memory_are_those_of_all_tokens_to_a_hundred_thousandth(kind):
    model, tokens = make(kind).eval(), torch.randint(9, (4, 12))
    past, found = None, []
    for token in tokens.split(1, dim=1):
        logits, past = model.continued(token, past)
        found.append(logits)
    assert (torch.cat(found, 1) - model(tokens)).abs().max() < 1e-5


def test_greedy_takes_the_most_likely_token_each_time():
    model = make("transformer").eval()
    tokens = generate(model, PROMPTS, 5, temperature=0).tokens
    assert torch.equal(model(tokens)[:, 2:-1].argmax(-1), tokens[:, 3:])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_draws_are_as_frequent_as_the_model_says(temperature):
    model = make("gru").eval()
    prompt = PROMPTS[:1].expand(40_000, 3)
    generator = torch.Generator().manual_seed(0)
    options = {} if temperature == 1 else {"temperature": temperature}
    written = generate(model, prompt, 2, generator=generator, **options).tokens
    pairs = torch.cartesian_prod(torch.arange(9), torch.arange(9))
    rows = torch.cat([PROMPTS[:1].expand(81, 3), pairs], 1)
    log = (model(rows) / temperature).log_softmax(-1)[:, 2:4].gather(2, pairs[..., None])
    probs = log.sum((1, 2)).exp().detach()
    counts = torch.bincount(9 * written[:, 3] + written[:, 4], minlength=81) / 40_000
    assert (counts - probs).abs().max() < 4 * (probs.max() / 40_000).sqrt()


def test_after_a_stop_comes_the_same_and_does_not_count():
    written = generate(make("gru"), PROMPTS.repeat(25, 1), 9, stop=2)
    answers, counts = written.tokens[:, 3:], written.mask[:, 3:]
    assert not written.mask[:, :3].any()
    for answer, counted in zip(answers.tolist(), counts.tolist(), strict=True):
        length = answer.index(2) + 1 if 2 in answer else 9
        assert counted == [True] * length + [False] * (9 - length)
        assert all(token == 2 for token in answer[length:])
    assert (counts.sum(1) < 9).any()


def test_it_leaves_mode_and_gradient_alone():
    model = nn.Sequential(nn.Embedding(9, 9), nn.Dropout(0.9))
    model.train()
    one, other = (generate(model, PROMPTS, 5, temperature=0).tokens for _ in range(2))
    assert model.training and torch.equal(one, other)


def test_what_is_no_prompt_is_refused():
    model = make("gru")
    with pytest.raises(TypeError, match="prompts are torch.float32: expected token numbers"):
        generate(model, PROMPTS.float(), 3)
    with pytest.raises(ValueError, match=r"prompts have shape \(4, 0\)"):
        generate(model, PROMPTS[:, :0], 3)
    with pytest.raises(ValueError, match="temperature is -1"):
        generate(model, PROMPTS, 3, temperature=-1)
