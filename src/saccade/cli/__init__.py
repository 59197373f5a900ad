"""The command line: few words, thin. Heavy libraries are imported inside the commands, so that help appears at once."""

import typer

from saccade.cli.benching import bench
from saccade.cli.checking import check
from saccade.cli.checkpoints import convert
from saccade.cli.decoding import decoder
from saccade.cli.doctoring import doctor
from saccade.cli.explaining import explain
from saccade.cli.fetching import fetch
from saccade.cli.merging import merge
from saccade.cli.papers import paper
from saccade.cli.pictures import data
from saccade.cli.planning import plan
from saccade.cli.recording import diff
from saccade.cli.scoring import scoring
from saccade.cli.shell import Shell, options
from saccade.cli.talk import ask, chat
from saccade.cli.training import train

app = typer.Typer(
    cls=Shell,
    name="saccade",
    help="Fast, tiny vision-language models: ask, evaluate, train.",
    epilog='Start with:  saccade ask photo.jpg "What color is the circle?"',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.callback()(options)
app.command("ask")(ask)
app.command("chat")(chat)
app.command("explain")(explain)
app.command("plan")(plan)
app.command("convert")(convert)
app.command("merge")(merge)
app.command("doctor")(doctor)
scoring.command("diff")(diff)
scoring.command("paper")(paper)
app.add_typer(scoring, name="eval")
data.command("check")(check)
data.command("fetch")(fetch)
app.add_typer(data, name="data")
app.add_typer(train, name="train")
bench.command("decoder")(decoder)
app.add_typer(bench, name="bench")


def main() -> None:
    """Run the command line; the console script's entry."""
    app(prog_name="saccade")
