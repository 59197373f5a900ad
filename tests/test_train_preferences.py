"""Preferences: trl's loss on our batches, a reference that stays, and a model that comes back as it was lent."""

import math
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from saccade.data.encoder import Encoder
from saccade.data.rows import PreferenceRow
from saccade.data.sources import Source
from saccade.errors import ConfigError
from saccade.prompt import Turn
from saccade.train.loop import train_stage
from saccade.train.lora import add_adapters
from saccade.train.stages import Group, Lora
from saccade.train.start import load_tokenizer
from saccade.train.tasks import Preferences, World
from saccade.train.trainer import assign_groups
from test_train import _InterruptAt, small_model
from train_answers import answer_stage, make_trainer, noise, train_both, write_rows
from train_small import logged

pytest.importorskip("trl")
from saccade.train.preferences import NUMBER, Pairs, PreferenceTrainer
from saccade.train.reference import frozen_copy

TASK = Preferences(data=(World(families={"preference": 1.0}, rows=8),), max_length=400)


class Rows:
    """Always "yes" rather than "no, none": of a picture, in a second turn, of two pictures, and of none."""

    asked = (
        (1, (Turn("user", "Is it there?", images=1),)),
        (1, (Turn("user", "What is it?", images=1), Turn("assistant", "a ring"), Turn("user", "Is it red?"))),
        (2, (Turn("user", "Are both of them there, or only one?", images=2),)),
        (0, (Turn("user", "Is ice cold?"),)),
    )

    def __len__(self):
        return len(self.asked)

    def __getitem__(self, number):
        pictures, turns = self.asked[number % len(self)]
        shown = tuple(noise(10 * number + picture) for picture in range(pictures))
        return PreferenceRow(f"rows:{number}", shown, turns, chosen="yes", rejected="no, none")


def summed(model, batch):
    """Log-probability of each answer of a batch, from plain logits."""
    batch = dict(batch)
    counted = batch.pop("completion_mask")[:, 1:].bool()
    with torch.no_grad():
        logits = model.eval()(**batch).logits[:, :-1].log_softmax(dim=-1)
    said = logits.gather(2, batch["input_ids"][:, 1:, None]).squeeze(2)
    return (said * counted).sum(dim=1)


def test_a_batch_marks_the_compared_answers_and_holds_each_picture_once():
    model, tokenizer = small_model(), load_tokenizer("nano")
    batch = Pairs(Rows(), Encoder(model.config, tokenizer))([{NUMBER: number} for number in range(4)])
    marked = [
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert [text.strip() for text in marked] == ["yes</s>"] * 4 + ["no, none</s>"] * 4
    assert len(batch["pixel_values"]) == 4
    assert torch.equal(batch["view_index"][:4], batch["view_index"][4:])
    assert "labels" not in batch


def test_the_loss_is_that_of_the_paper_and_the_margin_rises(tmp_path):
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(PreferenceTrainer, model, answer_stage(TASK, warmup=0.0), Rows(), tmp_path)
    batch = trainer.data_collator([{NUMBER: number} for number in range(4)])
    reference = trainer.ref_model
    trainer.train()
    first, last = (line for line in trainer.state.log_history if "rewards/margins" in line)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert last["rewards/margins"] > first["rewards/margins"] + 0.1

    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert not [name for name in changed if "vision_tower" in name or "compressor" in name]
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())

    moved = summed(model, batch) - summed(reference, batch)
    good, worse = moved.chunk(2)
    expected = -nn.functional.logsigmoid(TASK.beta * (good - worse)).mean()
    with torch.no_grad():
        found = trainer.compute_loss(make_again(trainer), batch)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_better_answers_own_loss_may_be_added(tmp_path):
    losses = []
    for weight in (0.0, 0.5):
        task = TASK.model_copy(update={"likelihood": weight})
        model = small_model()
        trainer = make_trainer(PreferenceTrainer, model, answer_stage(task, steps=1), Rows(), tmp_path)
        batch = trainer.data_collator([{NUMBER: number} for number in range(4)])
        said = -summed(model, batch)[:4].sum().item() / batch["completion_mask"][:4].sum().item()
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[1] == pytest.approx(math.log(2) + 0.5 * said, rel=1e-2)


def make_again(trainer):
    """The trained model with the head that trl computes log-probabilities by, which training took back."""
    from trl.trainer.utils import add_fused_lm_head

    outputs = ("log_probs", "entropy", "mean_logits", "is_top1")
    add_fused_lm_head(trainer.model, outputs=outputs)
    return trainer.model


def test_the_model_comes_back_as_it_was_lent(tmp_path):
    model = small_model()
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert any(rates)
    trainer = make_trainer(PreferenceTrainer, model, answer_stage(TASK, steps=1), Rows(), tmp_path)
    assert not any(module.p for module in model.modules() if isinstance(module, nn.Dropout))
    trainer.train()
    assert rates == [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert "forward" not in vars(model)


def test_a_reference_shares_what_is_frozen_and_runs_its_own_modules():
    model = small_model().eval()
    batch = Pairs(Rows(), Encoder(model.config, load_tokenizer("nano")))([{NUMBER: 0}])
    before = summed(model, batch)
    assign_groups(model, (Group(pattern="query", lr=1.0),))
    model.forward = lambda **_: pytest.fail("the reference ran the model it is a copy of")
    reference = frozen_copy(model)
    del model.forward
    with torch.no_grad():
        for parameter in model.model.embedded_query.parameters():
            parameter.normal_()
    assert not torch.allclose(summed(model, batch), before)
    torch.testing.assert_close(summed(reference, batch), before, rtol=0, atol=0)
    own = {name for name, parameter in reference.named_parameters() if parameter is not model.get_parameter(name)}
    assert own == {name for name, _ in model.named_parameters() if "embedded_query" in name}


def test_beside_adapters_the_reference_is_the_model_without(tmp_path):
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = frozen_copy(model)
    groups = (Group(pattern=r"language_model.*(q_proj|v_proj)", lr=1e-2, lora=Lora(rank=2)),)
    adapters = add_adapters(model, groups)
    trainer = make_trainer(PreferenceTrainer, model, answer_stage(TASK, groups=groups, warmup=0.0), Rows(), tmp_path)
    batch = trainer.data_collator([{NUMBER: number} for number in range(4)])
    trainer.train()
    torch.testing.assert_close(summed(trainer.ref_model, batch), summed(plain, batch))
    assert trainer.state.log_history[-2]["rewards/margins"] > 0
    copied = [name for name, one in trainer.ref_model.named_parameters() if one is not model.get_parameter(name)]
    assert copied
    assert all("lora_" in name for name in copied)
    adapters.merge()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("language_model" in name and name.endswith(("q_proj.weight", "v_proj.weight")) for name in changed)


def test_adapters_of_the_output_head_are_refused(tmp_path):
    model = small_model()
    groups = (Group(pattern="lm_head.weight", lr=1e-3, lora=Lora(rank=2)),)
    add_adapters(model, groups)
    with pytest.raises(ConfigError, match="lm_head"):
        make_trainer(PreferenceTrainer, model, answer_stage(TASK, groups=groups), Rows(), tmp_path)


def test_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    file = write_rows(tmp_path, 6, prompt="Is it there?", chosen="yes", rejected="no, none")
    task = Preferences(data=(Source(path=str(file), kind="preferences"),), max_length=400)
    stage = answer_stage(task, steps=None, epochs=2.0)
    whole, parts, again = small_model(), small_model(), small_model()
    tokenizer, log = load_tokenizer("nano"), tmp_path / "log.jsonl"
    train_stage(whole, tokenizer, stage, tmp_path / "whole", log=log, seed=3, workers=0)
    monkeypatch.setattr("saccade.train.loop.StopOnInterrupt", _InterruptAt)
    with pytest.raises(KeyboardInterrupt):
        train_stage(parts, tokenizer, stage, tmp_path / "parts", log=log, seed=3, workers=0)
    assert (tmp_path / "parts" / "checkpoint-2").is_dir()
    monkeypatch.undo()
    train_stage(again, tokenizer, stage, tmp_path / "parts", log=log, seed=3, workers=0)
    assert (tmp_path / "parts" / "checkpoint-3").is_dir(), "twelve rows make three steps"
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_without_trl_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "saccade.train.preferences")
    monkeypatch.setitem(sys.modules, "trl.trainer.dpo_config", None)
    with pytest.raises(ConfigError, match=r"needs the library trl: pip install 'saccade\[train\]'"):
        train_stage(small_model(), load_tokenizer("nano"), answer_stage(TASK), tmp_path, log=tmp_path / "log", seed=0)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """Some process often has no picture, and must not wait for the other; answers of one's own are drawn by each."""
    weights = {}
    for processes in (0, 2):
        out = tmp_path / str(processes)
        done = train_both(out, processes)
        assert done.returncode == 0, done.stderr[-3000:]
        weights[processes] = load_file(out / "0-preferences" / "model" / "model.safetensors")
        assert all(
            value.isfinite().all() for value in load_file(out / "1-problems" / "model" / "model.safetensors").values()
        )
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[2][name], value, rtol=0, atol=5e-5, msg=name)
    alone, divided = ([line for line in logged(tmp_path / run) if line["stage"] == "preferences"] for run in "02")
    assert [line["loss"] for line in divided] == pytest.approx([line["loss"] for line in alone], rel=1e-4)
    assert len(alone) == 3
