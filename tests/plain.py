"""What the papers invent, written once more with loops: no batching, no masks, one token at a time.

The tensors in `tests/data/expectations.safetensors` and the pixels in `tests/data/views.npz` come from these functions,
so that the modules are held to something they did not compute themselves. Weights go by the names of the model's
parameters, without `model.` in front.
"""

import math

import torch
from PIL import Image
from torch import Tensor

from saccade.roles import IMAGE

Weights = dict[str, Tensor]


def square(image: Image.Image, side: int, fit: str, resample: Image.Resampling) -> Image.Image:
    """The whole picture, squashed, or on a gray square with one pixel more to the right or below where it is odd."""
    if fit == "pad":
        longest = max(image.size)
        canvas = Image.new("RGB", (longest, longest), (127, 127, 127))
        canvas.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
        image = canvas
    return image.resize((side, side), resample)


def thumbnail_and_tiles(
    image: Image.Image, side: int, tiles_per_side: int, resample: Image.Resampling
) -> list[Image.Image]:
    """The squashed picture, then the padded one cut from left to right, row after row."""
    large = square(image, side * tiles_per_side, "pad", resample)
    shown = [square(image, side, "squash", resample)]
    for top in range(0, large.height, side):
        for left in range(0, large.width, side):
            shown.append(large.crop((left, top, left + side, top + side)))
    return shown


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    """`W x + b` for one vector or a stack of them."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    """Normalize one vector to mean 0 and variance 1, then scale and shift."""
    centered = x - x.mean()
    normal = centered / torch.sqrt((centered * centered).mean() + 1e-5)
    return normal * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def softmax(scores: list[Tensor]) -> list[Tensor]:
    """Weights that sum to 1."""
    largest = max(float(score) for score in scores)
    powers = [torch.exp(score - largest) for score in scores]
    return [power / sum(powers) for power in powers]


def sap(weights: Weights, patches: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Pool the patches `[patches, dim]` of one view; also return the weights `[tokens, window * window]`."""
    side = math.isqrt(len(patches))
    pooled, alphas = [], []
    for top in range(0, side, window):
        for left in range(0, side, window):
            inside = [
                patches[row * side + column]
                for row in range(top, top + window)
                for column in range(left, left + window)
            ]
            scores = [
                linear(weights, "compressor.score", torch.relu(linear(weights, "compressor.hidden", patch)))[0]
                for patch in inside
            ]
            alpha = softmax(scores)
            pooled.append(sum(weight * patch for weight, patch in zip(alpha, inside, strict=True)))
            alphas.append(torch.stack(alpha))
    return torch.stack(pooled), torch.stack(alphas)


def project(weights: Weights, tokens: Tensor) -> Tensor:
    """Two linear layers with the exact GELU between them, for `[tokens, vision_dim]`."""
    hidden = linear(weights, "multi_modal_projector.linears.0", tokens)
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return linear(weights, "multi_modal_projector.linears.1", hidden)


def splice(weights: Weights, ids: list[int], roles: list[int], visual: Tensor, init_token_id: int) -> Tensor:
    """Decoder inputs `[seq, text_dim]` of one row whose visual tokens are `visual`, in order."""
    table, queries = weights["language_model.embed_tokens.weight"], weights["embedded_query.queries"]
    seen = asked = 0
    output = []
    for token, role in zip(ids, roles, strict=True):
        if role == IMAGE:
            output.append(visual[seen])
            seen += 1
        elif role > IMAGE and role % 2 == 1:
            output.append(queries[asked % len(queries)] + table[init_token_id])
            asked += 1
        else:
            output.append(table[token])
    return torch.stack(output)


def attend(weights: Weights, name: str, query: Tensor, keys: list[Tensor], values: list[Tensor], heads: int) -> Tensor:
    """What one query finds among keys and values; every head has its own slice of the projections."""
    asked = linear(weights, f"{name}.q_proj", query)
    offered = [linear(weights, f"{name}.k_proj", key) for key in keys]
    content = [linear(weights, f"{name}.v_proj", value) for value in values]
    width, value_width = len(asked) // heads, len(content[0]) // heads
    found = []
    for head in range(heads):
        at, value_at = slice(head * width, (head + 1) * width), slice(head * value_width, (head + 1) * value_width)
        alpha = softmax([asked[at] @ key[at] / math.sqrt(width) for key in offered])
        found.append(sum(weight * value[value_at] for weight, value in zip(alpha, content, strict=True)))
    return torch.cat(found)


def read_patches(roles: list[int], position: int, views: list[Tensor], tokens_per_view: int) -> list[Tensor]:
    """The raw patches that the token at `position` may read: those of the views that stand before it."""
    before = sum(role == IMAGE for role in roles[:position]) // tokens_per_view
    return [patch for view in views[:before] for patch in view]


def fuse(weights: Weights, fusion: str, query: Tensor, found: Tensor) -> Tensor:
    """Join a query's hidden state with what it found."""
    if fusion == "gate":
        gate = torch.sigmoid(linear(weights, "embedded_query.gate", torch.cat([query, found])))
        return gate * query + (1 - gate) * found
    return found if fusion == "replace" else query + found


def embq(
    weights: Weights,
    hidden: Tensor,
    roles: list[int],
    views: list[Tensor],
    *,
    tokens_per_view: int,
    heads: int,
    layers: int,
    fusion: str = "add",
) -> Tensor:
    """Rewrite the query tokens among the hidden states `[seq, text_dim]` of one row that shows `views`."""
    module = "embedded_query"
    output = [state.clone() for state in hidden]
    for position, role in enumerate(roles):
        patches = read_patches(roles, position, views, tokens_per_view)
        if role <= IMAGE or role % 2 == 0 or not patches:
            continue
        instruction = [
            linear(weights, f"{module}.text_down", hidden[at]) for at, r in enumerate(roles) if r == role - 1
        ]
        picture = [linear(weights, f"{module}.image_down", patch) for patch in patches]
        for layer in range(layers):
            name = f"{module}.layers.{layer}"
            query = layer_norm(weights, f"{name}.query_norm", linear(weights, f"{module}.text_down", output[position]))
            text = [layer_norm(weights, f"{name}.text_norm", word) for word in instruction]
            keys = [layer_norm(weights, f"{name}.image_norm", patch) for patch in picture]
            understood = attend(weights, f"{name}.text_attention", query, text, text, heads)
            seen = attend(weights, f"{name}.image_attention", understood, keys, patches, heads)
            output[position] = fuse(weights, fusion, output[position], linear(weights, f"{module}.up", seen))
    return torch.stack(output)
