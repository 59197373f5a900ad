"""Compressors and the projector, each against a straightforward composition, and every one of them in a model."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
from transformers.models.internvl.modeling_internvl import InternVLModel

import chats
import small
from chats import alone, batch, generate, gradients, single_views
from saccade.config import (
    AverageConfig,
    ConvAbstractorConfig,
    CropConfig,
    LdpConfig,
    LdpV2Config,
    PixelShuffleConfig,
    ProjectorConfig,
    ResamplerConfig,
)
from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration
from saccade.model.compress import build_compressor
from saccade.model.project import MultiModalProjector

DIM, TEXT = 10, 20
# Each kind with the tokens that it makes of the small model's view and their width, and the projector that follows it.
KINDS = {
    "sap": ({"window": 2}, 16, 12, (16,)),
    "average": ({"window": 4}, 4, 12, (16,)),
    "none": ({}, 64, 12, ()),
    "pixel_shuffle": ({"window": 2}, 16, 48, (16,)),
    "crop": ({"margin": 1}, 36, 12, (16,)),
    "ldp": ({"window": 2, "hidden_size": TEXT}, 16, TEXT, None),
    "ldpv2": ({"window": 4, "hidden_size": TEXT}, 4, TEXT, None),
    "c_abstractor": ({"side": 3, "hidden_size": 14, "depth": 2}, 9, 14, (TEXT,)),
    "resampler": (
        {"num_queries": 7, "hidden_size": 18, "num_heads": 3, "num_layers": 3, "intermediate_size": 22},
        7,
        18,
        (),
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def config_with(kind: str):
    """The small model with embedded queries and another compressor."""
    fields, _, _, hidden_sizes = KINDS[kind]
    base = small.config()
    framed = base.image.model_copy(update={"margin": fields.get("margin", 0) * base.vision_config.patch_size})
    parts = {"compressor": {"kind": kind, **fields}, "projector": {"hidden_sizes": hidden_sizes}}
    return small.changed(base, image=framed, **parts)


def cells(views: int, grid: int, dim: int = DIM) -> Tensor:
    return torch.randn(views, grid**2, dim, generator=torch.Generator().manual_seed(3))


def random_compressor(config, grid: int) -> nn.Module:
    torch.manual_seed(4)
    built = build_compressor(config, DIM, grid).eval()
    for parameter in built.parameters():
        parameter.data.normal_(std=0.5)
    return built


@every_kind
def test_a_kind_gives_the_tokens_it_promises(kind):
    _, count, width, _ = KINDS[kind]
    model = SaccadeForConditionalGeneration(config_with(kind))
    assert (model.config.tokens_per_view, model.config.token_dim) == (count, width)
    patches = torch.randn(2, 64, 12)
    assert model.model.compressor(patches).shape == (2, count, width)
    assert model.model.project_patches(patches).shape == (2, count, TEXT)


@every_kind
def test_embedded_queries_work_beside_any_kind(kind):
    model = chats.build(config_with(kind))
    config, rows = model.config, single_views(model.config)
    inputs = batch(rows, of=config)
    answers = generate(model, inputs)
    for row, answer in enumerate(answers):
        assert generate(model, alone(rows, row, of=config))[0].tolist() == answer.tolist()
    assert gradients(model, inputs).keys() == {name for name, _ in model.named_parameters()}


@every_kind
def test_a_kind_compiles_whole(kind):
    model = chats.build(config_with(kind)).model
    patches = torch.randn(2, 64, 12)
    torch._dynamo.reset()  # each kind is one more graph of the same function, and their number is limited
    compiled = torch.compile(model.project_patches, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(patches), model.project_patches(patches), rtol=1e-4, atol=1e-5)


@every_kind
def test_a_kind_survives_saving(kind, tmp_path):
    model = chats.build(config_with(kind)).model
    model.save_pretrained(tmp_path)
    loaded, patches = type(model).from_pretrained(tmp_path).eval(), torch.randn(1, 64, 12)
    assert loaded.config.compressor == model.config.compressor
    assert loaded.config.projector == model.config.projector
    torch.testing.assert_close(loaded.project_patches(patches), model.project_patches(patches))


@pytest.mark.parametrize("kind", ["sap", "ldp", "ldpv2", "c_abstractor"])
def test_compressor_and_projector_start_as_torch_does(kind):
    """Uniform up to one over the root of the inputs, biases too: at a decoder's usual 0.02 small ones would be flat."""
    model = SaccadeForConditionalGeneration(config_with(kind)).model
    layers = [*model.compressor.modules(), *model.multi_modal_projector.modules()]
    drawn = [layer for layer in layers if isinstance(layer, (nn.Linear, nn.Conv2d))]
    assert len(drawn) >= 3
    for layer in drawn:
        bound = layer.weight[0].numel() ** -0.5
        assert 0.5 * bound < layer.weight.abs().max() <= bound
        assert layer.bias is None or 0 < layer.bias.abs().max() <= bound


def test_a_resampler_starts_by_its_width_and_its_tables_as_the_decoders():
    torch.manual_seed(5)
    model = SaccadeForConditionalGeneration(config_with("resampler"))
    compressor, table = model.model.compressor, model.config.text_config.initializer_range
    linears = [layer.weight.flatten() for layer in compressor.attention.modules() if isinstance(layer, nn.Linear)]
    assert torch.cat(linears).std().item() == pytest.approx((3 * 18) ** -0.5, rel=0.05)
    for embedding in (compressor.positions, compressor.queries):
        assert embedding.weight.std().item() == pytest.approx(table, rel=0.2)


@pytest.mark.parametrize("window", [2, 3])
def test_pixel_shuffle_is_that_of_its_peers(window):
    patches = cells(2, 6)
    tokens = random_compressor(PixelShuffleConfig(window=window), 6)(patches)
    torch.testing.assert_close(tokens, Idefics3Connector.pixel_shuffle(None, patches, window))
    if window == 2:  # the other takes a fraction, and a third is none that it accepts
        maps = InternVLModel.pixel_shuffle(None, patches.unflatten(1, (6, 6)), 0.5)
        torch.testing.assert_close(tokens, maps.flatten(1, 2))


def test_pixel_shuffle_orders_channels_as_told():
    patches = cells(2, 6)
    grid = patches.unflatten(1, (6, 6))
    for channels, order in {"p1p2c": "rows, columns", "p2p1c": "columns, rows"}.items():
        token = random_compressor(PixelShuffleConfig(window=3, channels=channels), 6)(patches)[1, 1]
        corner = grid[1, :3, 3:] if order == "rows, columns" else grid[1, :3, 3:].transpose(0, 1)
        torch.testing.assert_close(token, corner.flatten())
    tokens = random_compressor(PixelShuffleConfig(window=3, channels="cp1p2"), 6)(patches)
    unshuffled = nn.PixelUnshuffle(3)(grid.permute(0, 3, 1, 2))
    torch.testing.assert_close(tokens, unshuffled.flatten(2).transpose(1, 2))


def test_column_major_tokens_are_the_row_major_ones_transposed():
    patches = cells(2, 6)
    rows = random_compressor(PixelShuffleConfig(window=2), 6)(patches)
    columns = random_compressor(PixelShuffleConfig(window=2, order="col_major"), 6)(patches)
    torch.testing.assert_close(columns, rows.unflatten(1, (3, 3)).transpose(1, 2).flatten(1, 2))


@pytest.mark.parametrize(("grid", "margin"), [(3, 1), (7, 2), (8, 3), (32, 4)])
def test_crop_keeps_the_inner_cells(grid, margin):
    places = torch.cartesian_prod(torch.arange(grid), torch.arange(grid))
    kept = build_compressor(CropConfig(margin=margin), 2, grid)(places[None])[0]
    inner = range(margin, grid - margin)
    assert kept.tolist() == [[row, column] for row in inner for column in inner]
    assert len(kept) == CropConfig(margin=margin).num_tokens(grid)


def test_average_is_the_mean_of_each_window():
    patches = cells(1, 9)
    pooled = random_compressor(AverageConfig(window=3), 9)(patches)[0]
    torch.testing.assert_close(pooled[5], patches.view(9, 9, DIM)[3:6, 6:9].mean((0, 1)))


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    centered = x - x.mean(1, keepdim=True)
    normal = centered / (centered.square().mean(1, keepdim=True) + eps).sqrt()
    return normal * weight[:, None, None] + bias[:, None, None]


def test_ldp_is_the_published_composition():
    """Two linear layers, then MobileNetV3's inverted residual without expansion, twice."""
    width, patches = 12, cells(2, 6)
    compressor = random_compressor(LdpConfig(window=2, hidden_size=width), 6)
    weights = list(compressor.state_dict().values())

    def inverted_residual(x: Tensor, stride: int) -> Tensor:
        depthwise, *norm = (weights.pop(0) for _ in range(3))
        y = F.conv2d(x, depthwise, stride=stride, padding=1, groups=width)
        y = F.hardswish(channel_norm(y, *norm, 1e-5))
        down, down_bias, up, up_bias, pointwise, *norm = (weights.pop(0) for _ in range(7))
        gate = F.relu(F.conv2d(F.adaptive_avg_pool2d(y, 1), down, down_bias))
        y = y * F.hardsigmoid(F.conv2d(gate, up, up_bias))
        return channel_norm(F.conv2d(y, pointwise), *norm, 1e-5)

    first, first_bias, second, second_bias = (weights.pop(0) for _ in range(4))
    x = F.linear(F.gelu(F.linear(patches, first, first_bias)), second, second_bias)
    x = x.permute(0, 2, 1).reshape(2, width, 6, 6)
    x = x + inverted_residual(x, 1)
    expected = inverted_residual(x, 2).flatten(2).permute(0, 2, 1)
    assert not weights
    torch.testing.assert_close(compressor(patches), expected)


def test_ldpv2_is_the_published_composition():
    width, patches = 14, cells(2, 6)
    compressor = random_compressor(LdpV2Config(window=2, hidden_size=width), 6)
    mlp = nn.Sequential(nn.Linear(DIM, width), nn.GELU(), nn.Linear(width, width))
    convolution = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=True)
    weights = compressor.state_dict().values()
    for published, ours in zip([*mlp.parameters(), *convolution.parameters()], weights, strict=True):
        published.data = ours
    pooled = nn.AdaptiveAvgPool2d((3, 3))(mlp(patches).permute(0, 2, 1).reshape(2, width, 6, 6))
    expected = (convolution(pooled) + pooled).flatten(2).transpose(1, 2)
    torch.testing.assert_close(compressor(patches), expected)


def test_c_abstractor_is_the_published_composition():
    """RegNet's blocks with layer norm and SiLU around an adaptive pooling, at a size that does not divide the grid."""
    width, patches = 15, cells(2, 7)
    config = ConvAbstractorConfig(side=3, hidden_size=width, depth=2)
    compressor = random_compressor(config, 7)
    weights = list(compressor.state_dict().values())

    def block(x: Tensor) -> Tensor:
        first, *norm = (weights.pop(0) for _ in range(3))
        y = F.silu(channel_norm(F.conv2d(x, first), *norm, 1e-6))
        depthwise, *norm = (weights.pop(0) for _ in range(3))
        y = F.silu(channel_norm(F.conv2d(y, depthwise, padding=1, groups=width), *norm, 1e-6))
        down, down_bias, up, up_bias, last, *norm = (weights.pop(0) for _ in range(7))
        assert len(down) == x.shape[1] // 4
        gate = F.silu(F.conv2d(y.mean((2, 3), keepdim=True), down, down_bias))
        y = channel_norm(F.conv2d(y * F.conv2d(gate, up, up_bias).sigmoid(), last), *norm, 1e-6)
        if x.shape[1] != width:
            shortcut, *norm = (weights.pop(0) for _ in range(3))
            x = channel_norm(F.conv2d(x, shortcut), *norm, 1e-6)
        return F.silu(x + y)

    x = (patches + weights.pop(0)).permute(0, 2, 1).reshape(2, DIM, 7, 7)
    pooled = nn.AdaptiveAvgPool2d((3, 3))(block(block(x)))
    expected = block(block(pooled)).flatten(2).transpose(1, 2)
    assert not weights
    torch.testing.assert_close(compressor(patches), expected)


def test_a_resampler_knows_places_by_its_positions_alone():
    config = ResamplerConfig(num_queries=5, hidden_size=12, num_heads=3, num_layers=2, intermediate_size=14)
    compressor = random_compressor(config, 7)
    patches = cells(2, 7)
    mirrored = patches.flip(1)
    assert not torch.allclose(compressor(patches), compressor(mirrored), atol=1e-3)
    compressor.positions.weight.data.zero_()
    torch.testing.assert_close(compressor(patches), compressor(mirrored))
    assert not torch.allclose(compressor(patches)[0], compressor(patches)[1], atol=1e-3)


@pytest.mark.parametrize(
    ("compressor", "message"),
    [
        ({"kind": "pixel_shuffle", "window": 3}, "compressor.window 3 does not divide the grid of 8"),
        ({"kind": "ldpv2", "window": 3, "hidden_size": TEXT}, "compressor.window 3 does not divide the grid of 8"),
        ({"kind": "crop", "margin": 4}, "compressor.margin 4 leaves nothing of the grid of 8"),
        ({"kind": "c_abstractor", "side": 9, "hidden_size": 4}, "compressor.side 9 is more than the 8 patches"),
        ({"kind": "ldp", "hidden_size": 12}, "tokens are 12 wide and the decoder is 20"),
        ({"kind": "ldp"}, "compressor is not valid: ldp.hidden_size: Field required"),
        (
            {"kind": "resampler", "num_queries": 2, "hidden_size": 9, "num_heads": 2, "num_layers": 1}
            | {"intermediate_size": 4},
            "compressor.num_heads 2 does not divide compressor.hidden_size 9",
        ),
    ],
)
def test_a_compressor_that_does_not_fit_is_refused(compressor, message):
    with pytest.raises(ConfigError, match=message):
        SaccadeForConditionalGeneration(
            small.changed(small.config(), compressor=compressor, projector={"hidden_sizes": None})
        )


def test_the_deep_projector_is_the_published_one():
    """A LayerNorm and three linear layers, exact GELU after the first two (Flash-VL, Eqs. 2-5)."""
    published = nn.Sequential(
        nn.LayerNorm(DIM), nn.Linear(DIM, 14), nn.GELU(), nn.Linear(14, 16), nn.GELU(), nn.Linear(16, TEXT)
    )
    projector = MultiModalProjector(ProjectorConfig(hidden_sizes=(14, 16), input_norm=True), DIM, TEXT)
    for ours, theirs in zip(projector.parameters(), published.parameters(), strict=True):
        theirs.data.normal_()
        ours.data = theirs.data
    tokens = cells(2, 3)
    torch.testing.assert_close(projector(tokens), published(tokens))


def test_the_baseline_projector_is_two_linear_layers():
    """LLaVA's, with which both papers compare."""
    published = nn.Sequential(nn.Linear(DIM, TEXT), nn.GELU(), nn.Linear(TEXT, TEXT))
    projector = MultiModalProjector(ProjectorConfig(hidden_sizes=(TEXT,)), DIM, TEXT)
    for ours, theirs in zip(projector.parameters(), published.parameters(), strict=True):
        ours.data = theirs.data
    tokens = cells(2, 3)
    torch.testing.assert_close(projector(tokens), published(tokens))


def test_no_projector_changes_nothing():
    tokens = cells(2, 3)
    projector = MultiModalProjector(ProjectorConfig(hidden_sizes=None), DIM, DIM)
    assert projector(tokens) is tokens
    assert not list(projector.parameters())
