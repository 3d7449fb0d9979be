"""Right solutions of capture-features, written otherwise."""


def as_a_context(model, name, images):
    """The handle of a hook is a context manager."""
    box = {}

    def keep(module, inputs, output):
        box["output"] = 1 * output

    with dict(model.named_modules())[name].register_forward_hook(keep):
        model(images)
    return box["output"]


def by_wrapping(model, name, images):
    """Replace the submodule's forward for one call."""
    layer = model.get_submodule(name)
    seen = []
    original = layer.forward

    def spying(*arguments):
        output = original(*arguments)
        seen.append(output + 0)
        return output

    layer.forward = spying
    try:
        model(images)
    finally:
        del layer.forward
    return seen[0]


RIGHT = (as_a_context, by_wrapping)
