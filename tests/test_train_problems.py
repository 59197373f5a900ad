"""Problems: answers are scored as they were given, rewarded where they are verified, and learned from."""

import pytest
import torch

from saccade import presets
from saccade.config import SaccadeConfig
from saccade.data.rows import ProblemRow
from saccade.data.sources import Source
from saccade.errors import ConfigError
from saccade.model import SaccadeForConditionalGeneration
from saccade.prompt import Turn
from saccade.train import rewards
from saccade.train.loop import train_stage
from saccade.train.rewards import formatted, verified
from saccade.train.start import load_tokenizer
from saccade.train.tasks import Problems, World
from test_train import _InterruptAt, small_model
from train_answers import answer_stage, make_trainer, noise, write_rows

pytest.importorskip("trl")
from saccade.train.problems import ProblemTrainer

SMALL = {"max_length": 900, "max_new_tokens": 4, "generations": 2}
TASK = Problems(data=(World(families={"reasoning": 1.0}, rows=8),), kl=0.05, temperature=0.7, **SMALL)


class Rows:
    """Problems of a wide picture, of a tall one in two turns, of two pictures and of none; no prompts of one length."""

    asked = (
        (1, (Turn("user", "What is the sum?", images=1),)),
        (1, (Turn("user", "Hello", images=1), Turn("assistant", "Hello"), Turn("user", "How many are not red?"))),
        (2, (Turn("user", "Which has more of them, the first or the second?", images=2),)),
        (0, (Turn("user", "What is 1 + 2?"),)),
    )

    def __len__(self):
        return len(self.asked)

    def __getitem__(self, number):
        pictures, turns = self.asked[number % len(self)]
        shown = tuple(noise(10 * number + picture, 80, 60 + 50 * (number % 2)) for picture in range(pictures))
        return ProblemRow(f"rows:{number}", shown, turns, solution="3")


def tiled_model() -> SaccadeForConditionalGeneration:
    """A model whose pictures are several views."""
    torch.manual_seed(0)
    config: SaccadeConfig = presets.nano_hd()
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 2
    config.query = config.query.model_copy(update={"before_layers": (1,)})
    return SaccadeForConditionalGeneration(config)


@pytest.mark.parametrize("make", [small_model, tiled_model])
def test_answers_are_scored_as_they_were_given(make, tmp_path, monkeypatch):
    model, logits = make(), []
    never = model.config.placeholder_ids
    with torch.no_grad():
        model.lm_head.bias[never] += 20.0
    trainer = make_trainer(ProblemTrainer, model, answer_stage(TASK), Rows(), tmp_path)
    generate, encode, seen = model.generate, model.model.encode_views, []

    def note(**inputs):
        given = generate(**inputs, output_logits=True, return_dict_in_generate=True)
        logits.append(torch.stack(given.logits, dim=1))
        return given.sequences

    monkeypatch.setattr(model, "generate", note)
    monkeypatch.setattr(model.model, "encode_views", lambda views: seen.append(len(views)) or encode(views))
    model.train()
    scored = trainer._generate_and_score_completions([{"prompt": number} for number in range(4) for _ in range(2)])

    said, mask = scored["completion_ids"], scored["completion_mask"]
    assert not torch.isin(said, torch.tensor(never)).any()
    ids, whole = (torch.cat([scored[f"prompt_{of}"], scored[f"completion_{of}"]], dim=1) for of in ("ids", "mask"))
    order = torch.tensor([5, 0, 3, 6, 1, 7, 2, 4])
    trainer.numbers = scored["number"][order].tolist()
    with torch.no_grad():
        found, *_ = trainer._get_per_token_logps_and_entropies(model, ids[order], whole[order], said.shape[1])
    given = (logits[0] / TASK.temperature).log_softmax(dim=-1).gather(2, said.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(found * mask[order], (given * mask)[order], rtol=0, atol=1e-4)
    torch.testing.assert_close(scored["ref_per_token_logps"] * mask, given * mask, rtol=0, atol=1e-4)
    views = sum(len(trainer.shown[number][0].views) for number in range(3))
    assert seen == [views, views], "each picture is seen once for all answers, and once more when they are scored"


def test_steps_train_the_groups_and_nothing_else(tmp_path, monkeypatch):
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setitem(rewards.REWARDS, "verified", lambda said, _: float(len(said)))
    trainer = make_trainer(ProblemTrainer, model, answer_stage(TASK, warmup=0.0), Rows(), tmp_path)
    trainer.train()
    first, second = (line for line in trainer.state.log_history if "reward" in line)
    assert first["kl"] == pytest.approx(0.0, abs=1e-6), "rows keep their pictures when they are mixed"
    assert second["kl"] > 1e-6
    assert first["reward"] > 0
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if "vision_tower" in name or "compressor" in name]
    assert "forward" not in vars(model)


def test_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "verified", lambda said, _: float(len(said)))
    file = write_rows(tmp_path, 6, problem="What is the sum?", solution="3")
    task = TASK.model_copy(update={"data": (Source(path=str(file), kind="problems"),)})
    stage = answer_stage(task, steps=3, micro_batch=None)
    whole, parts, again = small_model(), small_model(), small_model()
    tokenizer, log = load_tokenizer("nano"), tmp_path / "log.jsonl"
    train_stage(whole, tokenizer, stage, tmp_path / "whole", log=log, seed=3, workers=0)
    monkeypatch.setattr("saccade.train.loop.StopOnInterrupt", _InterruptAt)
    with pytest.raises(KeyboardInterrupt):
        train_stage(parts, tokenizer, stage, tmp_path / "parts", log=log, seed=3, workers=0)
    assert (tmp_path / "parts" / "checkpoint-2").is_dir()
    monkeypatch.setattr("saccade.train.loop.StopOnInterrupt", _InterruptAt.__base__)
    train_stage(again, tokenizer, stage, tmp_path / "parts", log=log, seed=3, workers=0)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_prompts_and_answers_beyond_the_positions_are_refused(tmp_path):
    task = TASK.model_copy(update={"max_new_tokens": 100_000})
    with pytest.raises(ConfigError, match="lower max_length or max_new_tokens"):
        make_trainer(ProblemTrainer, small_model(), answer_stage(task), Rows(), tmp_path)


@pytest.mark.slow
def test_what_is_rewarded_is_said_more_often(tmp_path, monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "verified", lambda said, _: -float(len(said)))
    task = TASK.model_copy(update={"generations": 8, "kl": 0.001, "temperature": 1.0})
    stage = answer_stage(task, steps=30, micro_batch=4, warmup=0.0, schedule="constant_with_warmup")
    trainer = make_trainer(ProblemTrainer, small_model(), stage, Rows(), tmp_path)
    trainer.train()
    reward = [line["reward"] for line in trainer.state.log_history if "reward" in line]
    assert sum(reward[-5:]) / 5 > sum(reward[:5]) / 5 + 3


@pytest.mark.parametrize(
    ("said", "solution"),
    [
        ("The sum is 12.", "12"),
        ("7 + 5 = 12", "12.0"),
        ("10 - 3 = 7", "7"),
        ("1,200 people", "1200"),
        ("it is -3.50", "-7/2"),
        ("−4", "-4"),  # noqa: RUF001 (as LaTeX and people write it)
        ("50", "50%"),
        ("I see 4. <answer>3</answer> of 5", "<answer> 3 </answer>"),
        (r"\boxed{\frac{3}{4}}", "0.75"),
        ("30", r"$\boxed{30^\circ}$"),
        ("x = 5", "5 cm"),
        (r"2\sqrt{3}", r"$2\sqrt{3}$"),
        ("Yes.", "yes"),
        ("the red  one", "Red one"),
        ("(B)", r"\text{B}"),
    ],
)
def test_a_right_answer_is_verified(said, solution):
    assert verified(said, solution) == 1.0


@pytest.mark.parametrize(
    ("said", "solution"),
    [
        ("12 or 13", "12"),
        ("112", "12"),
        ("1.2", "12"),
        ("-4", "4"),
        ("3/0", "0"),
        ("", "3"),
        ("<answer>4</answer> 3", "3"),
        (r"2\sqrt{2}", r"2\sqrt{3}"),
        ("no", "yes"),
        ("", "yes"),
        ("red or blue", "red"),
        ("9" * 5000, "9"),
    ],
)
def test_a_wrong_answer_is_not(said, solution):
    assert verified(said, solution) == 0.0


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        ("<think>2 and 1</think>\n<answer>3</answer>", 1.0),
        ("3", 0.0),
        ("<answer>3</answer>", 0.0),
        ("<think>2 and 1</think><answer>3</answer> I think", 0.0),
        ("<think>2</think><think>1</think><answer>3</answer>", 0.0),
    ],
)
def test_the_form_is_thoughts_and_an_answer(said, reward):
    assert formatted(said, "3") == reward
